"""Slice, Gather and Pad: elements of an axis picked, repeated, or added."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import (
    axis_of,
    constant_ints,
    from_front,
    is_weight,
    parameter,
    present,
    rank,
    ref,
    size,
)
from onnxprune.channels.links import Barrier, Ints, Link, Pin, Produce, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import pass_through


@op_rule("Slice")
def slice_(node: gs.Node, opset: int) -> Iterator[Link]:
    """Sliced axes with known bounds pick elements; the rest of the input may come and go."""
    x, y = node.inputs[0], node.outputs[0]
    picked = slices(node, opset)
    for axis in range(rank(x)):
        if axis not in picked:
            yield from pass_through(x, y, (axis,))
        elif picked[axis] is not None and size(x, axis) is not None:
            yield Tie(ref(x, axis), ref(y, axis), picked[axis])


def slices(node: gs.Node, opset: int) -> dict[int, Ints | None]:
    """Elements picked on each sliced axis: None where a bound is computed or the axis is dynamic."""
    x = node.inputs[0]
    if opset < 10:
        starts, ends = parameter(node, "starts", 9), parameter(node, "ends", 9)
        axes, steps = parameter(node, "axes", 9), None
    else:
        starts, ends = constant_ints(present(node, 1)), constant_ints(present(node, 2))
        axes, steps = constant_ints(present(node, 3)), constant_ints(present(node, 4))
        if (present(node, 3) is not None and axes is None) or (starts is None and ends is None and axes is None):
            raise Barrier("the axes of Slice are computed")
        if present(node, 4) is not None and steps is None:
            starts = None
    count = len(starts or ends or axes or [])
    axes = list(range(count)) if axes is None else [from_front(axis, rank(x)) for axis in axes]
    found: dict[int, Ints | None] = dict.fromkeys(axes)
    if starts is None or ends is None:
        return found
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        length = size(x, axis)
        if length is not None and step:
            found[axis] = np.arange(length)[slice(*_bounds(start, end, step, length))]
    return found


def _bounds(start: int, end: int, step: int, length: int) -> tuple[int, int | None, int]:
    """ONNX bounds as Python ones: clamped, and an end before the first element becomes None."""
    start, end = (value + length if value < 0 else value for value in (start, end))
    if step > 0:
        return min(max(start, 0), length), min(max(end, 0), length), step
    stop = min(max(end, -1), length - 1)
    return min(max(start, 0), length - 1), None if stop < 0 else stop, step


@resize_hook("Slice")
def resize_slice(node: gs.Node, opset: int, cut: Cut) -> None:
    """New bounds where the kept elements are evenly spaced, otherwise a Gather in front that picks them."""
    x, y = node.inputs[0], node.outputs[0]
    picked = slices(node, opset)
    order = list(picked)
    for place, axis in enumerate(order):
        chosen = picked[axis]
        if chosen is None or not (len(cut.gone(x, axis)) or len(cut.gone(y, axis))):
            continue
        kept = chosen[cut.kept(y, axis)]
        positions = np.searchsorted(cut.kept(x, axis), kept)
        even = len(positions) < 3 or len(set(np.diff(positions).tolist())) == 1
        if not even:
            cut.pick(node, axis, positions)
            positions = np.arange(len(positions))
        _write_slice(node, opset, cut, place, positions)


def _write_slice(node: gs.Node, opset: int, cut: Cut, place: int, positions: Ints) -> None:
    step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    start = int(positions[0]) if len(positions) else 0
    end = int(positions[-1]) + (1 if step > 0 else -1) if len(positions) else start
    end = -(2**31) + 1 if end < 0 else end  # before the first element, in either integer type
    for name, slot, value in (("starts", 1, start), ("ends", 2, end), ("steps", 4, step)):
        values = parameter(node, name, 9) if opset < 10 else constant_ints(present(node, slot))
        if values is None and step == 1:
            continue
        values = [1] * len(constant_ints(present(node, 1)) or []) if values is None else list(values)
        values[place] = value
        if opset < 10:
            cut.set_ints(node, name, 9, values)
        else:  # all bounds have one integer type
            cut.set_input(node, slot, np.array(values, np.asarray(ir.constant(node.inputs[1])).dtype))


@op_rule("Gather")
def gather(node: gs.Node, opset: int) -> Iterator[Link]:
    """Constant indices on an axis pick elements; with computed ones the axis is a vocabulary and stays."""
    x, indices = node.inputs[:2]
    y = node.outputs[0]
    axis, extra = axis_of(node, x, 0), rank(indices) - 1
    for a in range(rank(x)):
        if a != axis:
            out = a if a < axis else a + extra
            if size(x, a) is not None or size(y, out) is not None:
                yield Tie(ref(x, a), ref(y, out))
                if is_weight(x) and not is_weight(indices):
                    yield Produce(ref(x, a), "embedding")
    for a in range(rank(indices)):
        if not is_weight(indices) and (size(indices, a) is not None or size(y, axis + a) is not None):
            yield Tie(ref(indices, a), ref(y, axis + a))
    picked, length = constant_ints(indices), size(x, axis)
    if picked is None or length is None:
        return
    elements = np.array([i + length if i < 0 else i for i in picked], np.int64)
    if rank(indices) == 1:
        yield Tie(ref(x, axis), ref(y, axis), elements)
    else:
        yield Pin(ref(x, axis), "Gather reads these elements by number", np.unique(elements))


@resize_hook("Gather")
def resize_gather(node: gs.Node, opset: int, cut: Cut) -> None:
    x, indices = node.inputs[:2]
    y = node.outputs[0]
    axis = axis_of(node, x, 0)
    picked = ir.constant(indices)
    if picked is None or not (len(cut.gone(x, axis)) or (rank(indices) == 1 and len(cut.gone(y, axis)))):
        return
    picked = np.where(picked < 0, picked + x.shape[axis], picked)
    if rank(indices) == 1:
        picked = picked[cut.kept(y, axis)]
    cut.set_input(node, 1, np.searchsorted(cut.kept(x, axis), picked).astype(np.asarray(ir.constant(indices)).dtype))


@op_rule("Pad")
def pad(node: gs.Node, opset: int) -> Iterator[Link]:
    """Constant padding adds elements of its own on both sides, negative padding drops some."""
    x, y = node.inputs[0], node.outputs[0]
    constant = ir.attribute(node, "mode", "constant") == "constant"
    for axis, (before, after) in enumerate(_pads(node, opset)):
        length = size(x, axis)
        if before == after == 0:
            yield from pass_through(x, y, (axis,))
        elif constant and length is not None:
            index = np.arange(-before, length + after)
            yield Tie(ref(x, axis), ref(y, axis), np.where((index < 0) | (index >= length), -1, index))


def _pads(node: gs.Node, opset: int) -> list[tuple[int, int]]:
    """(before, after) for each axis of the input."""
    x = node.inputs[0]
    pads = parameter(node, "pads", 1 if opset >= 11 else 9) or []
    axes = list(range(rank(x)))
    if present(node, 3) is not None:
        axes = [from_front(axis, rank(x)) for axis in parameter(node, "axes", 3) or []]
    if len(pads) != 2 * len(axes):
        raise Barrier(f"Pad has {len(pads)} numbers for {len(axes)} axes")
    result = [(0, 0)] * rank(x)
    for place, axis in enumerate(axes):
        result[axis] = pads[place], pads[place + len(axes)]
    return result


@resize_hook("Pad")
def resize_pad(node: gs.Node, opset: int, cut: Cut) -> None:
    """Padding counts the elements before the first and after the last kept one that the input supplies."""
    x, y = node.inputs[0], node.outputs[0]
    pads = _pads(node, opset)
    slot = 1 if opset >= 11 else 9
    axes = list(range(rank(x)))
    if present(node, 3) is not None:
        axes = [from_front(axis, rank(x)) for axis in parameter(node, "axes", 3) or []]
    for axis, (before, after) in enumerate(pads):
        if (before, after) != (0, 0) and (len(cut.gone(x, axis)) or len(cut.gone(y, axis))):
            pads[axis] = _new_pads(cut.kept(x, axis), cut.kept(y, axis) - before, x.shape[axis], before, after)
    cut.set_ints(node, "pads", slot, [pads[a][0] for a in axes] + [pads[a][1] for a in axes])


def _new_pads(kept_in: Ints, kept_out: Ints, length: int, before: int, after: int) -> tuple[int, int]:
    """`kept_out` counts from the input's first element: below 0 and from `length` on lies padding."""
    front = int((kept_out < 0).sum()) if before >= 0 else -int((kept_in < -before).sum())
    back = int((kept_out >= length).sum()) if after >= 0 else -int((kept_in >= length + after).sum())
    return front, back
