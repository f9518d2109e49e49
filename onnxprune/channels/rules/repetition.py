"""Expand, Tile and ConstantOfShape: axes whose elements repeat one element, or come from nowhere; and Shape itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut, editable, shape_entries
from onnxprune.channels.facts import constant_ints, integer, present, rank, ref, size
from onnxprune.channels.links import Link, Pin, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.selection import slices


@op_rule("Expand")
def expand(node: gs.Node, opset: int) -> Iterator[Link]:
    """An axis of size 1 becomes one whose elements are all alike, and so may leave one by one."""
    x, target = node.inputs[:2]
    y = node.outputs[0]
    offset, skipped = rank(y) - rank(x), rank(y) - _length(target, rank(y))
    for axis in range(rank(y)):
        source, out = axis - offset, size(y, axis)
        entry = axis - skipped
        writable = entry < 0 or shape_entries(target, rank(y) - skipped)[entry] == 1 or editable(target, entry, opset)
        if out is None or not writable:
            continue
        if source >= 0 and size(x, source) == out:
            yield Tie(ref(x, source), ref(y, axis))
        elif source < 0 or size(x, source) == 1:
            yield _free(y, axis)


def _length(target: gs.Tensor, default: int) -> int:
    length = size(target, 0) if rank(target) == 1 else None
    return default if length is None else length


def _free(y: gs.Tensor, axis: int) -> Link:
    """Every element of this axis is made by the node itself."""
    return Tie(ref(y, axis), ref(y, axis), np.full(y.shape[axis], -1))


@resize_hook("Expand")
def resize_expand(node: gs.Node, opset: int, cut: Cut) -> None:
    target, y = node.inputs[1], node.outputs[0]
    skipped = rank(y) - _length(target, rank(y))
    entries = shape_entries(target, rank(y) - skipped)
    sizes: dict[int, int] = {}
    for entry, value in enumerate(entries):
        new = cut.size(y, entry + skipped)
        if len(cut.gone(y, entry + skipped)) and value != 1 and isinstance(new, int):
            sizes[entry] = new
    if sizes:
        cut.set_shape(node, 1, sizes)


@op_rule("ConstantOfShape")
def constant_of_shape(node: gs.Node, opset: int) -> Iterator[Link]:
    target, y = node.inputs[0], node.outputs[0]
    for axis in range(rank(y)):
        if size(y, axis) is not None and editable(target, axis, opset):
            yield _free(y, axis)


@resize_hook("ConstantOfShape")
def resize_constant_of_shape(node: gs.Node, opset: int, cut: Cut) -> None:
    y = node.outputs[0]
    sizes = {a: size for a in range(rank(y)) if len(cut.gone(y, a)) and isinstance(size := cut.size(y, a), int)}
    if sizes:
        cut.set_shape(node, 0, sizes)


@op_rule("Tile")
def tile(node: gs.Node, opset: int) -> Iterator[Link]:
    """Element j of a tiled axis is element j mod n; copies of a single element may leave one by one. An axis that is
    repeated a computed number of times stays.
    """
    x, repeats, y = node.inputs[0], node.inputs[1], node.outputs[0]
    for axis, times in enumerate(shape_entries(repeats, rank(x))):
        length, out = size(x, axis), size(y, axis)
        if times is None and length is not None:
            continue
        if length == 1 and out is not None and editable(repeats, axis, opset):
            yield _free(y, axis)
        elif length is not None and times is not None:
            yield Tie(ref(x, axis), ref(y, axis), np.arange(length * times) % length)


@resize_hook("Tile")
def resize_tile(node: gs.Node, opset: int, cut: Cut) -> None:
    x, y = node.inputs[0], node.outputs[0]
    sizes = {
        axis: new
        for axis in range(rank(x))
        if size(x, axis) == 1 and len(cut.gone(y, axis)) and isinstance(new := cut.size(y, axis), int)
    }
    if sizes:
        cut.set_shape(node, 1, sizes)


SIZE_READERS = ("Shape", "Size")


@op_rule(*SIZE_READERS)
def shape_of(node: gs.Node, opset: int) -> Iterator[Link]:
    """Sizes that are read as data stay, but only those that somebody reads: mostly batch and sequence."""
    x, y = node.inputs[0], node.outputs[0]
    start, end = integer(node, "start", 0), integer(node, "end", rank(x))
    visible = list(range(rank(x)))[slice(start, end)] if node.op == "Shape" else list(range(rank(x)))
    read = set(visible) if node.op == "Size" else {visible[i] for i in _entries_read(y, len(visible), opset)}
    for axis in range(rank(x)):
        if axis in read:
            yield Pin(ref(x, axis), f"{node.op} reads its size as data")
        elif size(x, axis) is not None:
            yield Tie(ref(x, axis), ref(x, axis))


def _entries_read(y: gs.Tensor, length: int, opset: int) -> set[int]:
    """Entries of a shape vector that its consumers pick with constants; all, unless every consumer does."""
    read: set[int] = set()
    consumers = ir.consumers(y)
    for node in consumers:
        picked: Iterable[int] | None = None
        if node.op == "Gather" and not ir.domain(node):
            picked = constant_ints(present(node, 1))
        elif node.op == "Slice" and not ir.domain(node):
            picked = slices(node, opset).get(0)
        if picked is None:
            return set(range(length))
        read.update(int(i) % length for i in picked)
    return read if consumers else set(range(length))
