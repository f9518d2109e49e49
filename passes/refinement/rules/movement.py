"""Operators that move elements: the gradient moves them back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats.arrays import Array
from passes.refinement.tape import Gradients, NoRuleError, Rule, Tape, given


def reshape(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Anything that keeps the elements in their order."""
    return {0: tape.reshape(dy, tape.shape(node.inputs[0]))}


def identity(_tape: Tape, _node: gs.Node, dy: str) -> Gradients:
    return {0: dy}


def transpose(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    rank = len(tape.shape(node.inputs[0]))
    order = ir.attribute(node, "perm") or list(range(rank))[::-1]
    return {0: tape.transpose(dy, np.argsort(order).tolist())}


def concat(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    axis, start, found = int(ir.attribute(node, "axis", 0)), 0, {}
    axis %= len(tape.shape(node.outputs[0]))
    for place, tensor in enumerate(node.inputs):
        stop = start + tape.shape(tensor)[axis]
        if tape.wants(tensor):
            found[place] = tape.op("Slice", dy, *(tape.constant([value]) for value in (start, stop, axis)))
        start = stop
    return found


def split(tape: Tape, node: gs.Node, _dy: str) -> Gradients:
    """The parts again in a row, zeros for those that lead nowhere."""
    parts = []
    for tensor in node.outputs:
        found = tape.gradients.get(str(tensor.name))
        parts.append(found or tape.constant(np.zeros(tape.shape(tensor), np.float32)))
    return {0: tape.op("Concat", *parts, axis=int(ir.attribute(node, "axis", 0)))}


def cut(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Slice: what was left out gets zeros."""
    shape, gradient = tape.shape(node.inputs[0]), dy
    for axis, picked in _slices(node, shape):
        if len(picked) != shape[axis] or (picked != np.arange(shape[axis])).any():
            gradient = _returned(tape, gradient, len(tape.shape(node.outputs[0])), axis, picked, shape[axis])
    return {0: gradient}


def gather(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Gather along an axis by constant indices, each element taken once at most."""
    indices = ir.constant(node.inputs[1])
    if indices is None:
        raise NoRuleError("indices that are computed")
    shape = tape.shape(node.inputs[0])
    axis = int(ir.attribute(node, "axis", 0)) % len(shape)
    picked = np.asarray(indices).reshape(-1) % shape[axis]
    if len(np.unique(picked)) != len(picked):
        raise NoRuleError("an element that is taken twice")
    flat = tape.reshape(dy, (*shape[:axis], len(picked), *shape[axis + 1 :]))
    return {0: _returned(tape, flat, len(shape), axis, picked, shape[axis])}


def _returned(tape: Tape, dy: str, rank: int, axis: int, picked: Array, size: int) -> str:
    """Slices along ``axis`` back at the places ``picked`` among ``size``: one slice of zeros serves all others."""
    source = np.full(size, len(picked))
    source[picked] = np.arange(len(picked))
    pads = [0] * 2 * rank
    pads[rank + axis] = 1
    padded = tape.op("Pad", dy, tape.constant(pads), tape.constant(0.0))
    return tape.op("Gather", padded, tape.constant(source.astype(np.int64)), axis=axis)


def _slices(node: gs.Node, shape: Sequence[int]) -> list[tuple[int, Array]]:
    """The axes that a Slice cuts, each with the places that it keeps."""
    starts, ends, axes, steps = (_numbers(node, name, place) for place, name in enumerate(_SLICE, start=1))
    if starts is None or ends is None:
        raise NoRuleError("bounds that are computed")
    axes = list(range(len(starts))) if axes is None else [axis % len(shape) for axis in axes]
    bounds = zip(axes, starts, ends, steps or [1] * len(axes), strict=True)
    return [(axis, _kept(shape[axis], start, end, step)) for axis, start, end, step in bounds]


_SLICE = ("starts", "ends", "axes", "steps")


def _kept(size: int, start: int, end: int, step: int) -> Array:
    """As Slice of the ONNX operator specification reads its bounds, which Python reads alike but for one end."""
    backwards_to_first = step < 0 and end < -size
    return np.arange(size)[slice(start, None if backwards_to_first else end, step)]


def _numbers(node: gs.Node, name: str, place: int) -> list[int] | None:
    """Integers from an attribute or a constant input; None where absent."""
    values = given(node, name, place)
    return None if values is None else [int(value) for value in values]


def pad(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    if ir.attribute(node, "mode", "constant") not in ("constant", b"constant"):
        raise NoRuleError("padding with copies")
    shape = tape.shape(node.inputs[0])
    pads, axes = _numbers(node, "pads", 1), _numbers(node, "axes", 3)
    axes = list(range(len(shape))) if axes is None else [axis % len(shape) for axis in axes]
    if pads is None or min(pads) < 0:
        raise NoRuleError("pads that cut, or are not known")
    starts = pads[: len(axes)]
    ends = [start + shape[axis] for start, axis in zip(starts, axes, strict=True)]
    return {0: tape.op("Slice", dy, *(tape.constant(values) for values in (starts, ends, axes)))}


def expand(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    return {0: tape.unbroadcast(dy, tape.shape(node.outputs[0]), tape.shape(node.inputs[0]))}


def cast(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """A Cast between floats; shapes are known for tensors of float32 only, so it is one to itself."""
    tape.shape(node.inputs[0])
    return {0: dy}


RULES: dict[str, Rule] = {
    "Cast": cast,
    "Concat": concat,
    "Dropout": identity,
    "Expand": expand,
    "Flatten": reshape,
    "Gather": gather,
    "Identity": identity,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": cut,
    "Split": split,
    "Squeeze": reshape,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
