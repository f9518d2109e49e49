"""Evaluates the operators that shape arithmetic is made of, on integer arrays whose elements may be symbolic sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx.numpy_helper

from onnxprune import ir
from passes.symbolic.dims import Dim, Size, compare, divide, floor_divide, nonnegative, smallest

if TYPE_CHECKING:
    from passes.symbolic.analysis import Facts

Values: TypeAlias = np.ndarray[Any, Any]
"""An object array of Python ints, bools and :class:`Dim`. Floats that are whole numbers are held as ints."""

MAX_ELEMENTS = 1024
MAX_FLOATS = 16  # enough for scales; weights are not worth looking at
Rule = Callable[["ir.Node", "Facts"], Values | None]
RULES: dict[str, Rule] = {}


def lift(array: np.ndarray[Any, Any]) -> Values | None:
    """Return a plain array as symbolic values; None for one that is large or holds anything but whole numbers."""
    if array.size > MAX_ELEMENTS or array.dtype.kind not in "iubf":
        return None
    if array.dtype.kind == "f":
        if (
            array.size > MAX_FLOATS
            or array.dtype.itemsize < 4
            or not np.isfinite(array).all()
            or (array != np.floor(array)).any()
        ):
            return None
        if (np.abs(array) > 2**24).any():
            return None
        array = array.astype(np.int64)
    return _objects(array.tolist(), array.shape)


def is_plain(values: Values) -> bool:
    """Tell whether no element is symbolic."""
    return not any(isinstance(value, Dim) for value in values.reshape(-1))


def _objects(values: object, shape: Sequence[int]) -> Values:
    made = np.empty(tuple(shape), dtype=object)
    made[...] = np.asarray(values, dtype=object).reshape(tuple(shape))
    return made


def _rule(*ops: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


def _plain_ints(facts: Facts, node: ir.Node, position: int) -> list[int] | None:
    """The integers at an input, when all of them are known numbers."""
    values = facts.input_value(node, position)
    if values is None or not is_plain(values):
        return None
    return [int(value) for value in values.reshape(-1)]


def axes_of(node: ir.Node, facts: Facts) -> list[int] | None:
    """Return the axes that a Squeeze, Unsqueeze or reduction names by attribute or input; None when it names none."""
    axes = ir.attribute(node, "axes")
    if isinstance(axes, list):
        return [int(axis) for axis in axes]
    if len(node.inputs) > 1 and node.inputs[1].name:
        return _plain_ints(facts, node, 1)
    return None


@_rule("Identity", "Floor", "Ceil", "Round")
def _same(node: ir.Node, facts: Facts) -> Values | None:
    return facts.input_value(node, 0)


@_rule("Cast")
def _cast(node: ir.Node, facts: Facts) -> Values | None:
    values = facts.input_value(node, 0)
    target = ir.attribute(node, "to")
    if values is None or target in (onnx.TensorProto.INT64, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return None if values is None else _map(values, lambda value: value if isinstance(value, Dim) else int(value))
    if target == onnx.TensorProto.INT32:
        small = all(isinstance(value, Dim) or abs(value) < 2**31 for value in values.reshape(-1))
        return _map(values, lambda value: value if isinstance(value, Dim) else int(value)) if small else None
    if target == onnx.TensorProto.BOOL:
        return _map(values, lambda value: _decided(value, 0, lambda order: order != 0))
    return None


@_rule("Shape")
def _shape(node: ir.Node, facts: Facts) -> Values | None:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return None
    start, end = ir.attribute(node, "start", 0), ir.attribute(node, "end")
    return _objects(np.array(shape, dtype=object)[slice(start, end)], [len(shape[slice(start, end)])])


@_rule("Size")
def _size(node: ir.Node, facts: Facts) -> Values | None:
    shape = facts.shape(node.inputs[0])
    return None if shape is None else _objects(reduce(operator.mul, shape, 1), [])


@_rule("Gather")
def _gather(node: ir.Node, facts: Facts) -> Values | None:
    values, indices = facts.input_value(node, 0), facts.input_value(node, 1)
    if values is None or indices is None or not is_plain(indices):
        return None
    axis = ir.attribute(node, "axis", 0)
    picked = indices.astype(np.int64)
    if values.ndim == 0 or (picked.size and (picked.max() >= values.shape[axis] or picked.min() < -values.shape[axis])):
        return None
    result = np.take(values, picked, axis=axis)
    return _objects(result, np.shape(result))


@_rule("Slice")
def _slice(node: ir.Node, facts: Facts) -> Values | None:
    values = facts.input_value(node, 0)
    bounds = slice_bounds(node, facts)
    if values is None or bounds is None:
        return None
    index = [slice(None)] * values.ndim
    for start, end, axis, step in bounds:
        if isinstance(start, Dim) or isinstance(end, Dim):
            return None
        index[axis] = slice(start, None if step < 0 and end < -values.shape[axis] else end, step)
    return values[tuple(index)]


def slice_bounds(node: ir.Node, facts: Facts) -> list[tuple[Size, Size, int, int]] | None:
    """Return ``(start, end, axis, step)`` for every sliced axis; None unless axes and steps are numbers."""
    if isinstance(ir.attribute(node, "starts"), list):
        starts, ends = list(node.attrs["starts"]), list(node.attrs["ends"])
        axes: list[int] | None = ir.attribute(node, "axes") or list(range(len(starts)))
        steps: list[int] | None = [1] * len(starts)
    else:
        given = [facts.input_value(node, position) for position in (1, 2)]
        if given[0] is None or given[1] is None:
            return None
        starts, ends = (list(values.reshape(-1)) for values in given if values is not None)
        has_axes, has_steps = (len(node.inputs) > position and node.inputs[position].name for position in (3, 4))
        axes = _plain_ints(facts, node, 3) if has_axes else list(range(len(starts)))
        steps = _plain_ints(facts, node, 4) if has_steps else [1] * len(starts)
    shape = facts.shape(node.inputs[0])
    if axes is None or steps is None or shape is None or 0 in steps:
        return None
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        return None
    return [(s, e, axis % len(shape), step) for s, e, axis, step in zip(starts, ends, axes, steps, strict=True)]


@_rule("Concat")
def _concat(node: ir.Node, facts: Facts) -> Values | None:
    parts = [facts.input_value(node, position) for position in range(len(node.inputs))]
    known = [part for part in parts if part is not None and part.ndim]
    if len(known) < len(parts) or sum(part.size for part in known) > MAX_ELEMENTS:
        return None
    return np.concatenate(known, axis=ir.attribute(node, "axis", 1 if facts.opset < 4 else 0))


@_rule("Unsqueeze")
def _unsqueeze(node: ir.Node, facts: Facts) -> Values | None:
    values, axes = facts.input_value(node, 0), axes_of(node, facts)
    if values is None or axes is None:
        return None
    return np.expand_dims(values, tuple(axes))


@_rule("Squeeze")
def _squeeze(node: ir.Node, facts: Facts) -> Values | None:
    values, axes = facts.input_value(node, 0), axes_of(node, facts)
    if values is None or (axes is None and len(node.inputs) > 1 and node.inputs[1].name):
        return None
    if axes is not None and any(values.shape[axis] != 1 for axis in axes):
        return None
    result = np.squeeze(values, None if axes is None else tuple(axes))
    return _objects(result, result.shape)


@_rule("Reshape", "Flatten", "Expand")
def _reshape(node: ir.Node, facts: Facts) -> Values | None:
    values, shape = facts.input_value(node, 0), facts.rule_shape(node)
    if values is None or shape is None or any(isinstance(size, Dim) for size in shape):
        return None
    sizes = [int(size) for size in shape if isinstance(size, int)]
    if int(np.prod(sizes)) > MAX_ELEMENTS:
        return None
    if node.op == "Expand":
        return np.broadcast_to(values, sizes).copy()
    return values.reshape(sizes) if int(np.prod(sizes)) == values.size else None


@_rule("Transpose")
def _transpose(node: ir.Node, facts: Facts) -> Values | None:
    values = facts.input_value(node, 0)
    return None if values is None else np.transpose(values, ir.attribute(node, "perm"))


@_rule("ConstantOfShape")
def _constant_of_shape(node: ir.Node, facts: Facts) -> Values | None:
    sizes = _plain_ints(facts, node, 0)
    if sizes is None or min(sizes, default=0) < 0 or int(np.prod(sizes)) > MAX_ELEMENTS:
        return None
    fill = ir.attribute(node, "value")
    array = np.zeros(1, np.float32) if fill is None else onnx.numpy_helper.to_array(fill)
    lifted = lift(array.reshape(-1))
    return None if lifted is None else _objects([lifted[0]] * int(np.prod(sizes)), sizes)


@_rule("Range")
def _range(node: ir.Node, facts: Facts) -> Values | None:
    ends = [_plain_ints(facts, node, position) for position in range(3)]
    if any(end is None or len(end) != 1 for end in ends):
        return None
    start, limit, step = (end[0] for end in ends if end)
    if step == 0 or not 0 <= (limit - start) / step <= MAX_ELEMENTS:
        return None
    numbers = list(range(start, limit, step))
    return _objects(numbers, [len(numbers)])


@_rule("Where")
def _where(node: ir.Node, facts: Facts) -> Values | None:
    parts = [facts.input_value(node, position) for position in range(3)]
    if any(part is None for part in parts) or any(isinstance(c, Dim) for c in parts[0].reshape(-1)):  # type: ignore[union-attr]
        return None
    condition, yes, no = np.broadcast_arrays(*[part for part in parts if part is not None])
    picked = [a if c else b for c, a, b in zip(condition.flat, yes.flat, no.flat, strict=True)]
    return _objects(picked, condition.shape)


@_rule("Not")
def _not(node: ir.Node, facts: Facts) -> Values | None:
    values = facts.input_value(node, 0)
    return None if values is None else _map(values, lambda value: None if isinstance(value, Dim) else not value)


@_rule("Neg")
def _negate(node: ir.Node, facts: Facts) -> Values | None:
    values = facts.input_value(node, 0)
    return None if values is None else _map(values, operator.neg)


@_rule("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduce(node: ir.Node, facts: Facts) -> Values | None:
    values, axes = facts.input_value(node, 0), axes_of(node, facts)
    if values is None or values.ndim != 1 or (axes is not None and axes not in ([0], [-1])):
        return None
    unknown_axes = axes is None and len(node.inputs) > 1 and node.inputs[1].name
    if unknown_axes or (axes is None and ir.attribute(node, "noop_with_empty_axes", 0)):
        return None
    combine = {"ReduceProd": operator.mul, "ReduceSum": operator.add, "ReduceMax": _largest, "ReduceMin": smallest}
    if not values.size:
        return None
    total = reduce(combine[node.op], list(values))
    return None if total is None else _objects([total], [1] if ir.attribute(node, "keepdims", 1) else [])


def _largest(a: Size, b: Size) -> Size | None:
    order = compare(a, b) if a is not None and b is not None else None
    return None if order is None else (a if order >= 0 else b)


def _quotient(a: Size, b: Size, floating: bool) -> Size | None:
    if floating:
        return divide(a, b)
    positive = compare(b, 0) == 1 or (nonnegative(b) and isinstance(b, Dim))  # a size of zero would have trapped
    return floor_divide(a, b) if positive and nonnegative(a) else None


def _remainder(a: Size, b: Size) -> Size | None:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b > 0 and a >= 0 else None
    return 0 if divide(a, b) is not None else None


def _decided(a: Size, b: Size, judge: Callable[[int], bool]) -> bool | None:
    order = compare(a, b)
    if order is None and nonnegative(a - b) and judge(1) == judge(0):
        return judge(0)
    return None if order is None else judge(order)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Mod": _remainder,
    "Max": _largest,
    "Min": smallest,
    "Equal": lambda a, b: _decided(a, b, lambda order: order == 0),
    "Greater": lambda a, b: _decided(a, b, lambda order: order > 0),
    "GreaterOrEqual": lambda a, b: _decided(a, b, lambda order: order >= 0),
    "Less": lambda a, b: _decided(a, b, lambda order: order < 0),
    "LessOrEqual": lambda a, b: _decided(a, b, lambda order: order <= 0),
    "And": lambda a, b: None if isinstance(a, Dim) or isinstance(b, Dim) else bool(a and b),
    "Or": lambda a, b: None if isinstance(a, Dim) or isinstance(b, Dim) else bool(a or b),
}


@_rule("Div", *_BINARY)
def _binary(node: ir.Node, facts: Facts) -> Values | None:
    if len(node.inputs) != 2 or "broadcast" in node.attrs:
        return None
    a, b = facts.input_value(node, 0), facts.input_value(node, 1)
    if a is None or b is None or max(a.size, b.size) > MAX_ELEMENTS:
        return None
    floating = facts.is_floating(node.inputs[0])
    combine = _BINARY.get(node.op) or (lambda x, y: _quotient(x, y, floating))
    if node.op == "Min" and not all(nonnegative(value) for value in (*a.flat, *b.flat)):
        return None
    try:
        left, right = np.broadcast_arrays(a, b)
    except ValueError:
        return None
    results = [combine(x, y) for x, y in zip(left.flat, right.flat, strict=True)]
    if left.size > MAX_ELEMENTS or any(result is None for result in results):
        return None
    return _objects(results, left.shape)


def _map(values: Values, function: Callable[[Any], Any]) -> Values | None:
    results = [function(value) for value in values.flat]
    return None if any(result is None for result in results) else _objects(results, values.shape)
