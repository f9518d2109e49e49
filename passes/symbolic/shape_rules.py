"""Shapes of operator outputs as symbolic sizes, for the operators whose dynamic sizes matter to shape arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxprune import ir
from passes.symbolic.dims import Dim, Size, compare, divide, floor_divide, nonnegative, product, smallest, symbol
from passes.symbolic.values import axes_of, is_plain, slice_bounds

if TYPE_CHECKING:
    from passes.symbolic.analysis import Facts

Shape: TypeAlias = list[Size]
Rule = Callable[[ir.Node, "Facts"], Shape | None]
RULES: dict[str, Rule] = {}

# fmt: off
SAME = [
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Cast", "CastLike", "Ceil",
    "Celu", "Clip", "Cos", "Cosh", "CumSum", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf",
    "IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu", "QuantizeLinear", "RMSNormalization", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt",
    "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu",
]
BROADCAST = [
    "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
]
REDUCE = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
]
# fmt: on


def _rule(*ops: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


@_rule(*SAME)
def _same(node: ir.Node, facts: Facts) -> Shape | None:
    return facts.shape(node.inputs[0])


@_rule(*BROADCAST)
def _broadcast_inputs(node: ir.Node, facts: Facts) -> Shape | None:
    if "broadcast" in node.attrs or (facts.opset < 7 and len(node.inputs) > 1):
        return None
    result: Shape | None = []
    for tensor in node.inputs:
        shape = facts.shape(tensor)
        result = None if result is None or shape is None else broadcast(result, shape)
    return result


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """Return the shape of two tensors combined elementwise, given that the combination is valid."""
    width = max(len(a), len(b))
    left: Shape = [*[1] * (width - len(a)), *a]
    right: Shape = [*[1] * (width - len(b)), *b]
    return [_common(x, y) for x, y in zip(left, right, strict=True)]


def _common(a: Size, b: Size) -> Size:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    # sizes that are not 1 must agree, so the known one of a valid model is the answer
    if isinstance(a, int) and a > 1:
        return a
    if isinstance(b, int) and b > 1:
        return b
    for size, other in ((a, b), (b, a)):
        if _is_cut(other, size):
            return size
    first, second = sorted((repr(a), repr(b)))
    return symbol(f"common[{first};{second}]")


def _is_cut(cut: Size, size: Size) -> bool:
    """Whether ``cut`` is min(size, c) with a number c > 1; then it is 1 only if ``size`` is."""
    if not isinstance(cut, Dim) or len(cut.terms) != 1:
        return False
    ((names, factor),) = cut.terms.items()
    if factor != 1 or len(names) != 1 or not names[0].startswith("min["):
        return False
    parts = names[0][4:-1].split(";")
    return len(parts) == 2 and repr(size) in parts and any(part.isdigit() and int(part) > 1 for part in parts)


@_rule("MatMul")
def _matmul(node: ir.Node, facts: Facts) -> Shape | None:
    a, b = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    batch = broadcast(a[:-2], b[:-2])
    return None if batch is None else [*batch, a[-2], b[-1]]


@_rule("Gemm")
def _gemm(node: ir.Node, facts: Facts) -> Shape | None:
    a, b = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    return [a[1 if ir.attribute(node, "transA", 0) else 0], b[0 if ir.attribute(node, "transB", 0) else 1]]


@_rule("Conv", "MaxPool", "AveragePool", "LpPool")
def _window(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    weight = facts.shape(node.inputs[1]) if node.op == "Conv" else None
    if x is None or len(x) < 3 or (node.op == "Conv" and weight is None):
        return None
    spatial = len(x) - 2
    kernel = ir.attribute(node, "kernel_shape") or (weight[2:] if weight else None)
    if not isinstance(kernel, list) or not all(isinstance(size, int) for size in kernel):
        return None
    strides = ir.attribute(node, "strides") or [1] * spatial
    dilations = ir.attribute(node, "dilations") or [1] * spatial
    pads = ir.attribute(node, "pads") or [0] * (2 * spatial)
    mode = ir.attribute(node, "auto_pad", "NOTSET")
    if not len(kernel) == len(strides) == len(dilations) == len(pads) / 2 == spatial or min(strides) < 1:
        return None
    sizes: Shape = []
    for axis, size in enumerate(x[2:]):
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        padding = pads[axis] + pads[axis + spatial]
        sizes.append(_windows(size, extent, padding, strides[axis], mode, bool(ir.attribute(node, "ceil_mode", 0))))
    return [x[0], weight[0] if weight else x[1], *sizes]


def _windows(size: Size, extent: int, padding: int, stride: int, mode: str, ceil: bool) -> Size:
    """Number of windows along one axis; a symbol named after all arguments where the division is not exact."""
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return size if stride == 1 else floor_divide(size + (stride - 1), stride)
    free = size + ((0 if mode == "VALID" else padding) - extent)
    exact = divide(free, stride)
    if exact is not None:
        return exact + 1
    if isinstance(free, int):
        return (-(-free // stride) if ceil else free // stride) + 1
    return symbol(f"windows[{free!r}/{stride}{'+' if ceil else ''}]")


@_rule("ConvTranspose")
def _conv_transpose(node: ir.Node, facts: Facts) -> Shape | None:
    x, weight = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if x is None or weight is None or len(x) < 3 or "output_shape" in node.attrs:
        return None
    spatial = len(x) - 2
    strides = ir.attribute(node, "strides") or [1] * spatial
    dilations = ir.attribute(node, "dilations") or [1] * spatial
    pads = ir.attribute(node, "pads") or [0] * (2 * spatial)
    extra = ir.attribute(node, "output_padding") or [0] * spatial
    if ir.attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    sizes = [
        (size - 1) * strides[axis]
        + (weight[axis + 2] - 1) * dilations[axis]
        + (1 + extra[axis] - pads[axis] - pads[axis + spatial])
        for axis, size in enumerate(x[2:])
    ]
    return [x[0], weight[1] * ir.attribute(node, "group", 1), *sizes]


@_rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    return None if x is None else [*x[:2], *[1] * (len(x) - 2)]


@_rule("Transpose")
def _transpose(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if x is None:
        return None
    perm = ir.attribute(node, "perm") or list(range(len(x)))[::-1]
    return [x[axis] for axis in perm] if sorted(perm) == list(range(len(x))) else None


@_rule("Flatten")
def _flatten(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    if x is None:
        return None
    axis = ir.attribute(node, "axis", 1)
    axis += len(x) if axis < 0 else 0
    return [product(x[:axis]), product(x[axis:])]


@_rule("Reshape")
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


@_rule("Squeeze")
def _squeeze(node: ir.Node, facts: Facts) -> Shape | None:
    x, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if x is None:
        return None
    if axes is None:
        named = len(node.inputs) > 1 and node.inputs[1].name
        return None if named or any(isinstance(size, Dim) for size in x) else [size for size in x if size != 1]
    gone = {axis % len(x) for axis in axes}
    return [size for axis, size in enumerate(x) if axis not in gone]


@_rule("Unsqueeze")
def _unsqueeze(node: ir.Node, facts: Facts) -> Shape | None:
    x, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if x is None or axes is None:
        return None
    width = len(x) + len(axes)
    new = {axis % width for axis in axes}
    rest = iter(x)
    return [1 if axis in new else next(rest) for axis in range(width)] if len(new) == len(axes) else None


@_rule("Concat")
def _concat(node: ir.Node, facts: Facts) -> Shape | None:
    shapes = [facts.shape(tensor) for tensor in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1:
        return None
    axis = ir.attribute(node, "axis", 1) % len(known[0])
    result = [next((s[k] for s in known if isinstance(s[k], int)), known[0][k]) for k in range(len(known[0]))]
    result[axis] = sum((shape[axis] for shape in known[1:]), start=known[0][axis])
    return result


@_rule("Slice")
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


@_rule("Gather")
def _gather(node: ir.Node, facts: Facts) -> Shape | None:
    x, indices = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if x is None or indices is None:
        return None
    axis = ir.attribute(node, "axis", 0) % max(len(x), 1)
    return [*x[:axis], *indices, *x[axis + 1 :]]


@_rule("GatherElements")
def _gather_elements(node: ir.Node, facts: Facts) -> Shape | None:
    return facts.shape(node.inputs[1])


@_rule("Shape")
def _shape(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    return None if x is None else [len(x[slice(ir.attribute(node, "start", 0), ir.attribute(node, "end"))])]


@_rule("Pad")
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


@_rule("Expand")
def _expand(node: ir.Node, facts: Facts) -> Shape | None:
    x, target = facts.shape(node.inputs[0]), facts.input_value(node, 1)
    return None if x is None or target is None else broadcast(x, list(target.reshape(-1)))


@_rule("Tile")
def _tile(node: ir.Node, facts: Facts) -> Shape | None:
    x, repeats = facts.shape(node.inputs[0]), facts.input_value(node, 1)
    if x is None or repeats is None or repeats.size != len(x):
        return None
    return [size * times for size, times in zip(x, repeats.reshape(-1), strict=True)]


@_rule("ConstantOfShape")
def _constant_of_shape(node: ir.Node, facts: Facts) -> Shape | None:
    target = facts.input_value(node, 0)
    return None if target is None else list(target.reshape(-1))


@_rule("Range")
def _range(node: ir.Node, facts: Facts) -> Shape | None:
    ends = [facts.input_value(node, position) for position in range(3)]
    known = [end.reshape(-1)[0] for end in ends if end is not None and end.size == 1]
    if len(known) < 3 or known[2] != 1 or not nonnegative(known[1] - known[0]):
        return None
    return [known[1] - known[0]]


@_rule(*REDUCE)
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


@_rule("Resize")
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


@_rule("DepthToSpace", "SpaceToDepth")
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
