"""Reshape, Flatten, Squeeze, Unsqueeze, Transpose: the same elements under other axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut, editable, shape_entries
from onnxprune.channels.factors import atoms, blocks
from onnxprune.channels.facts import attribute_ints, from_front, parameter, rank, ref, shape, size
from onnxprune.channels.links import Barrier, Link, Pin, Tie
from onnxprune.channels.registry import op_rule, resize_hook

Blocks = list[tuple[tuple[int, ...], tuple[int, ...]]]


@op_rule("Reshape")
def reshape(node: gs.Node, opset: int) -> Iterator[Link]:
    """Runs of axes with equal products share their elements, unless the target cannot be rewritten."""
    target, y = node.inputs[1], node.outputs[0]
    entries = shape_entries(target, rank(y))
    fixed = {a for a, entry in enumerate(entries) if entry is None and not editable(target, a, opset)}
    yield from _regroup(node.inputs[0], y, fixed)


@op_rule("Flatten")
def flatten(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from _regroup(node.inputs[0], node.outputs[0], set())


@op_rule("Squeeze", "Unsqueeze")
def squeeze(node: gs.Node, opset: int) -> Iterator[Link]:
    """Axes of size 1 come and go; the others keep their order. The axes: attribute before 13, input since."""
    x, y = node.inputs[0], node.outputs[0]
    wide, narrow = (x, y) if node.op == "Squeeze" else (y, x)
    axes = parameter(node, "axes", 1)
    if axes is None:
        if any(not isinstance(dim, int) for dim in shape(wide)):
            raise Barrier("which axes have size 1 is not known")
        axes = [a for a, dim in enumerate(shape(wide)) if dim == 1]
    ones = {from_front(axis, rank(wide)) for axis in axes}
    rest = [a for a in range(rank(wide)) if a not in ones]
    if len(rest) != rank(narrow):
        raise Barrier(f"{node.op} leaves {len(rest)} axes, its operand has {rank(narrow)}")
    for b, a in enumerate(rest):
        if size(wide, a) is not None or size(narrow, b) is not None:
            yield Tie(ref(wide, a), ref(narrow, b))


@resize_hook("Squeeze")
def resize_squeeze(node: gs.Node, opset: int, cut: Cut) -> None:
    """Names the axes: one that is pruned down to size 1 must not be squeezed as well."""
    x = node.inputs[0]
    if parameter(node, "axes", 1) is None:
        axes = [a for a, dim in enumerate(shape(x)) if dim == 1]
        if opset < 13:
            node.attrs["axes"] = axes
        else:
            cut.set_input(node, 1, axes)


@op_rule("Transpose")
def transpose(node: gs.Node, opset: int) -> Iterator[Link]:
    x, y = node.inputs[0], node.outputs[0]
    order = attribute_ints(node, "perm") or list(range(rank(x)))[::-1]
    for b, a in enumerate(order):
        if size(x, a) is not None or size(y, b) is not None:
            yield Tie(ref(x, a), ref(y, b))


def _regroup(x: gs.Tensor, y: gs.Tensor, fixed: set[int]) -> Iterator[Link]:
    aligned = blocks(shape(x), shape(y))
    yield from _innermost(x, y, fixed, aligned)
    for left, right in aligned:
        before = {a: dim for a in left if (dim := shape(x)[a]) != 1}
        after = {b: dim for b in right if (dim := shape(y)[b]) != 1}
        sizes = [dim for dim in (*before.values(), *after.values()) if isinstance(dim, int) and dim > 0]
        if not before or not after or len(sizes) < len(before) + len(after) or fixed.intersection(right):
            continue
        if atoms(sizes[: len(before)], sizes[len(before) :]):
            yield Tie(ref(x, *before), ref(y, *after))
        else:
            reason = f"sizes {sizes[: len(before)]} and {sizes[len(before) :]} have no digits in common"
            yield from (Pin(ref(x, a), reason) for a in before)
            yield from (Pin(ref(y, b), reason) for b in after)
    yield from _outermost(x, y, fixed)


def _outermost(x: gs.Tensor, y: gs.Tensor, fixed: set[int]) -> Iterator[Link]:
    """Where the rest of a run is not known, as in (c, h, w) -> (groups, -1): the first axes of it, of which one holds
    the other's elements in equal parts, since both count the same elements from the outermost on.
    """
    i = j = 0
    for left, right in blocks(shape(x), shape(y)):
        if (left[0], right[0]) != (i, j):
            break
        i, j = left[-1] + 1, right[-1] + 1
    if i >= rank(x) or j >= rank(y) or j in fixed:
        return
    a, b = size(x, i), size(y, j)
    if a is None or b is None or max(a, b) % max(min(a, b), 1):
        return
    wide, narrow = (ref(x, i), ref(y, j)) if a > b else (ref(y, j), ref(x, i))
    if min(a, b) < 2:
        yield Pin(wide, "it becomes a part of an axis of unknown size, or comes from one")
        return
    yield Tie(narrow, wide, np.arange(max(a, b)) // (max(a, b) // min(a, b)))


def _innermost(x: gs.Tensor, y: gs.Tensor, fixed: set[int], aligned: Blocks) -> Iterator[Link]:
    """Where axes in front are dynamic, the last ones that do not agree still share their innermost digit.

    In (batch, 32) to (batch * 4, 8), element j of the 8 is elements j, 8 + j, 16 + j and 24 + j of the 32.
    """
    lefts, rights = ({a for run in aligned for a in run[side]} for side in (0, 1))
    left = max((a for a in range(rank(x)) if a not in lefts and shape(x)[a] != 1), default=None)
    right = max((b for b in range(rank(y)) if b not in rights and shape(y)[b] != 1), default=None)
    if left is None or right is None or right in fixed:
        return
    long, short = size(x, left), size(y, right)
    if long and short and long % short == 0:
        yield Tie(ref(y, right), ref(x, left), np.arange(long) % short)
    elif long and short and short % long == 0:
        yield Tie(ref(x, left), ref(y, right), np.arange(short) % long)


@resize_hook("Reshape")
def resize_reshape(node: gs.Node, opset: int, cut: Cut) -> None:
    """Writes the new sizes; 0 (copied from the input) and -1 (inferred) say the right thing by themselves."""
    x, y = node.inputs[0], node.outputs[0]
    entries = shape_entries(node.inputs[1], rank(y))
    sizes: dict[int, int] = {}
    for axis, entry in enumerate(entries):
        new = cut.size(y, axis)
        copied = entry == 0 and axis < rank(x) and cut.size(x, axis) == new
        if len(cut.gone(y, axis)) and entry != -1 and not copied and isinstance(new, int):
            sizes[axis] = new
    if sizes:
        cut.set_shape(node, 1, sizes)
