"""Operators that count along an axis: arg max, top k, running sums, reversal, triangles. That axis keeps its size."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, constant_ints, from_front, integer, present, rank, ref, size
from onnxprune.channels.links import Barrier, Link, Pin, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through


def beside(x: gs.Tensor, y: gs.Tensor, axis: int, reason: str) -> Iterator[Link]:
    """All axes but one pass from `x` to `y`, which have the same rank."""
    yield from pass_through(x, y, (a for a in range(rank(x)) if a != axis))
    if size(x, axis) is not None:
        yield Pin(ref(x, axis), reason)


@op_rule("ArgMax", "ArgMin")
def arg_max(node: gs.Node, opset: int) -> Iterator[Link]:
    """The reduced axis has size 1 in the output, or is dropped."""
    x, y = node.inputs[0], node.outputs[0]
    axis = from_front(integer(node, "axis", 0), rank(x))
    reason = f"{node.op} gives positions along it"
    if integer(node, "keepdims", 1):
        yield from beside(x, y, axis, reason)
        return
    rest = [a for a in range(rank(x)) if a != axis]
    if len(rest) != rank(y):
        raise Barrier(f"{node.op} over axis {axis} does not fit the rank of {y.name}")
    for out, a in enumerate(rest):
        if size(x, a) is not None or size(y, out) is not None:
            yield Tie(ref(x, a), ref(y, out))
    if size(x, axis) is not None:
        yield Pin(ref(x, axis), reason)


@op_rule("TopK")
def top_k(node: gs.Node, opset: int) -> Iterator[Link]:
    """Values and their positions; every other axis is searched on its own."""
    x = node.inputs[0]
    axis = from_front(integer(node, "axis", -1), rank(x))
    for y in node.outputs:
        if y.name:
            yield from beside(x, y, axis, "TopK gives positions along it")


@op_rule("CumProd", "CumSum")
def running(node: gs.Node, opset: int) -> Iterator[Link]:
    """Each element along the axis holds all before it."""
    x = node.inputs[0]
    axis = constant_ints(present(node, 1))
    if axis is None or len(axis) != 1:
        raise Barrier(f"the axis of {node.op} is computed")
    yield from beside(x, node.outputs[0], from_front(axis[0], rank(x)), f"{node.op} adds up along it")


@op_rule("Trilu")
def trilu(node: gs.Node, opset: int) -> Iterator[Link]:
    """A triangle of the last two axes is kept."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0], range(rank(x) - 2))
    for axis in range(rank(x) - 2, rank(x)):
        yield Pin(ref(x, axis), "Trilu cuts a triangle out of it")


@op_rule("Det")
def det(node: gs.Node, opset: int) -> Iterator[Link]:
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0], range(rank(x) - 2))
    for axis in range(rank(x) - 2, rank(x)):
        yield Pin(ref(x, axis), "Det needs square matrices")


@op_rule("ReverseSequence")
def reverse_sequence(node: gs.Node, opset: int) -> Iterator[Link]:
    """Each element of the batch is reversed up to its own length."""
    x, lengths = node.inputs[:2]
    y = node.outputs[0]
    batch = from_front(integer(node, "batch_axis", 1), rank(x))
    yield from beside(x, y, from_front(integer(node, "time_axis", 0), rank(x)), "ReverseSequence runs along it")
    if size(x, batch) is not None or size(lengths, 0) is not None:
        yield Tie(ref(x, batch), ref(lengths, 0))


@op_rule("Compress")
def compress(node: gs.Node, opset: int) -> Iterator[Link]:
    """Without an axis the input is flattened first, and everything keeps its size."""
    x = node.inputs[0]
    if "axis" in node.attrs:
        yield from beside(x, node.outputs[0], axis_of(node, x, 0), "Compress picks along it")


@op_rule("OneHot")
def one_hot(node: gs.Node, opset: int) -> Iterator[Link]:
    """A new axis of `depth` positions; those of the indices pass."""
    indices, y = node.inputs[0], node.outputs[0]
    place = from_front(integer(node, "axis", -1), rank(y))
    rest = [a for a in range(rank(y)) if a != place]
    for a, out in zip(range(rank(indices)), rest, strict=True):
        if size(indices, a) is not None or size(y, out) is not None:
            yield Tie(ref(indices, a), ref(y, out))
    if size(y, place) is not None:
        yield Pin(ref(y, place), "OneHot numbers its positions")


EVERYWHERE = {
    "EyeLike": "marks the diagonal of it",
    "MaxUnpool": "reads positions that count all channels",
    "NonMaxSuppression": "gives positions along it",
    "NonZero": "gives positions along it",
    "Unique": "compares whole slices",
}


@op_rule(*EVERYWHERE)
def everywhere(node: gs.Node, opset: int) -> Iterator[Link]:
    """Positions along every axis of the inputs: all of them stay."""
    for x in node.inputs:
        for axis in range(rank(x) if x.name else 0):
            if size(x, axis) is not None:
                yield Pin(ref(x, axis), f"{node.op} {EVERYWHERE[node.op]}")
