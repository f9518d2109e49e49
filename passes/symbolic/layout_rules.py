"""Symbolic output shapes of operators that move, cut, repeat or reduce elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune import ir
from passes.symbolic.dims import Dim, Size, compare, divide, floor_divide, nonnegative, product, smallest
from passes.symbolic.shape_rules import Shape, broadcast, rule
from passes.symbolic.values import axes_of, is_plain, slice_bounds

if TYPE_CHECKING:
    from passes.symbolic.analysis import Facts

# fmt: off
REDUCE = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
]
# fmt: on


@rule("Transpose")
def _transpose(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if x is None:
        return None
    perm = ir.attribute(node, "perm") or list(range(len(x)))[::-1]
    return [x[axis] for axis in perm] if sorted(perm) == list(range(len(x))) else None


@rule("Flatten")
def _flatten(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if x is None:
        return None
    axis = ir.attribute(node, "axis", 1)
    axis += len(x) if axis < 0 else 0
    return [product(x[:axis]), product(x[axis:])]


@rule("Reshape")
def _reshape(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if len(node.inputs) < 2:
        given = ir.attribute(node, "shape")
        target = list(given) if isinstance(given, list) else None
    else:
        values = facts.input_value(node, 1)
        target = None if values is None or values.ndim != 1 else list(values)
    return None if target is None else reshaped(x, target, bool(ir.attribute(node, "allowzero", 0)))


def reshaped(x: Shape | None, target: Shape, allow_zero: bool) -> Shape | None:
    """Return the shape that reshaping a tensor of shape ``x`` to ``target`` gives; None when it cannot be told."""
    sizes: list[Size | None] = []
    for axis, size in enumerate(target):
        if size == 0 and not allow_zero:
            if x is None or axis >= len(x):
                return None
            sizes.append(x[axis])
        elif size == -1:
            sizes.append(None)
        elif isinstance(size, Dim) and not nonnegative(size):
            return None
        else:
            sizes.append(size)
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes):
        return known
    rest = divide(product(x), product(known)) if x is not None and sizes.count(None) == 1 else None
    return None if rest is None else [rest if size is None else size for size in sizes]


@rule("Squeeze")
def _squeeze(node: ir.Node, facts: Facts) -> Shape | None:
    x, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if x is None:
        return None
    if axes is None:
        named = len(node.inputs) > 1 and node.inputs[1].name
        return None if named or any(isinstance(size, Dim) for size in x) else [size for size in x if size != 1]
    gone = {axis % len(x) for axis in axes}
    return [size for axis, size in enumerate(x) if axis not in gone]


@rule("Unsqueeze")
def _unsqueeze(node: ir.Node, facts: Facts) -> Shape | None:
    x, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if x is None or axes is None:
        return None
    width = len(x) + len(axes)
    new = {axis % width for axis in axes}
    rest = iter(x)
    return [1 if axis in new else next(rest) for axis in range(width)] if len(new) == len(axes) else None


@rule("Concat")
def _concat(node: ir.Node, facts: Facts) -> Shape | None:
    shapes = [facts.shape(tensor) for tensor in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1:
        return None
    axis = ir.attribute(node, "axis", 1) % len(known[0])
    result = [next((s[k] for s in known if isinstance(s[k], int)), known[0][k]) for k in range(len(known[0]))]
    result[axis] = sum((shape[axis] for shape in known[1:]), start=known[0][axis])
    return result


@rule("Slice")
def _slice(node: ir.Node, facts: Facts) -> Shape | None:
    x, bounds = facts.shape(node.inputs[0]), slice_bounds(node, facts)
    if x is None or bounds is None:
        return None
    result = list(x)
    for start, end, axis, step in bounds:
        size = _sliced(x[axis], start, end, step)
        if size is None:
            return None
        result[axis] = size
    return result


def _sliced(size: Size, start: Size, end: Size, step: int) -> Size | None:
    if all(isinstance(value, int) for value in (size, start, end)):
        return len(range(*slice(int(start), int(end), step).indices(int(size))))  # type: ignore[arg-type]
    if step < 1 or not nonnegative(start) or (isinstance(end, int) and end < 0):
        return None
    last = size if isinstance(end, int) and end >= 2**31 - 1 else smallest(size, end)
    if start != 0 and compare(last - start, 0) not in (0, 1) and not nonnegative(last - start):
        return None
    return floor_divide(last - start + (step - 1), step)


@rule("Gather")
def _gather(node: ir.Node, facts: Facts) -> Shape | None:
    x, indices = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if x is None or indices is None:
        return None
    axis = ir.attribute(node, "axis", 0) % max(len(x), 1)
    return [*x[:axis], *indices, *x[axis + 1 :]]


@rule("GatherElements")
def _gather_elements(node: ir.Node, facts: Facts) -> Shape | None:
    return facts.shape(node.inputs[1])


@rule("Shape")
def _shape(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    return None if x is None else [len(x[slice(ir.attribute(node, "start", 0), ir.attribute(node, "end"))])]


@rule("Pad")
def _pad(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if x is None or (len(node.inputs) > 3 and node.inputs[3].name):
        return None
    values = ir.attribute(node, "pads") or ir.attribute(node, "paddings")
    if not isinstance(values, list):
        given = facts.input_value(node, 1) if len(node.inputs) > 1 else None
        values = None if given is None else list(given.reshape(-1))
    if values is None or len(values) != 2 * len(x):
        return None
    return [size + values[axis] + values[axis + len(x)] for axis, size in enumerate(x)]


@rule("Expand")
def _expand(node: ir.Node, facts: Facts) -> Shape | None:
    x, target = facts.shape(node.inputs[0]), facts.input_value(node, 1)
    return None if x is None or target is None else broadcast(x, list(target.reshape(-1)))


@rule("Tile")
def _tile(node: ir.Node, facts: Facts) -> Shape | None:
    x, repeats = facts.shape(node.inputs[0]), facts.input_value(node, 1)
    if x is None or repeats is None or repeats.size != len(x):
        return None
    return [size * times for size, times in zip(x, repeats.reshape(-1), strict=True)]


@rule("ConstantOfShape")
def _constant_of_shape(node: ir.Node, facts: Facts) -> Shape | None:
    target = facts.input_value(node, 0)
    return None if target is None else list(target.reshape(-1))


@rule("Range")
def _range(node: ir.Node, facts: Facts) -> Shape | None:
    ends = [facts.input_value(node, position) for position in range(3)]
    known = [end.reshape(-1)[0] for end in ends if end is not None and end.size == 1]
    if len(known) < 3 or known[2] != 1 or not nonnegative(known[1] - known[0]):
        return None
    return [known[1] - known[0]]


@rule(*REDUCE)
def _reduce(node: ir.Node, facts: Facts) -> Shape | None:
    x, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if x is None or (axes is None and len(node.inputs) > 1 and node.inputs[1].name):
        return None
    if not axes:
        if ir.attribute(node, "noop_with_empty_axes", 0):
            return x
        axes = list(range(len(x)))
    gone = {axis % max(len(x), 1) for axis in axes}
    if ir.attribute(node, "keepdims", 1):
        return [1 if axis in gone else size for axis, size in enumerate(x)]
    return [size for axis, size in enumerate(x) if axis not in gone]


@rule("Resize")
def _resize(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if x is None or "axes" in node.attrs or ir.attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    sizes = facts.input_value(node, 3) if len(node.inputs) > 3 else None
    if sizes is not None and sizes.size == len(x):
        return list(sizes.reshape(-1))
    position = 1 if facts.opset < 11 else 2
    scales = facts.input_value(node, position) if len(node.inputs) > position else None
    if scales is None or scales.size != len(x) or not is_plain(scales):
        return None
    return [size * int(times) for size, times in zip(x, scales.reshape(-1), strict=True)]


@rule("DepthToSpace", "SpaceToDepth")
def _space(node: ir.Node, facts: Facts) -> Shape | None:
    x, block = facts.shape(node.inputs[0]), ir.attribute(node, "blocksize")
    if x is None or len(x) != 4 or not block:
        return None
    if node.op == "SpaceToDepth":
        sizes = [divide(size, block) for size in x[2:]]
        known = [size for size in sizes if size is not None]
        return [x[0], x[1] * block * block, *known] if len(known) == 2 else None
    channels = divide(x[1], block * block)
    return None if channels is None else [x[0], channels, x[2] * block, x[3] * block]


def split_shapes(node: ir.Node, facts: Facts) -> list[Shape | None] | None:
    """Return the shapes of the outputs of a Split whose sizes are numbers."""
    x = facts.shape(node.inputs[0])
    if x is None:
        return None
    axis = ir.attribute(node, "axis", 0) % max(len(x), 1)
    sizes = ir.attribute(node, "split")
    if not isinstance(sizes, list) and len(node.inputs) > 1 and node.inputs[1].name:
        given = facts.input_value(node, 1)
        sizes = list(np.asarray(given).reshape(-1)) if given is not None else None
    elif not isinstance(sizes, list):
        each = divide(x[axis], len(node.outputs))
        sizes = None if each is None else [each] * len(node.outputs)
    if sizes is None or len(sizes) != len(node.outputs):
        return None
    return [[*x[:axis], size, *x[axis + 1 :]] for size in sizes]
