"""Symbolic output shapes of elementwise operators, matrix products, convolutions and pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from onnxprune import ir
from passes.symbolic.dims import Dim, Size, divide, floor_divide, symbol

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
# fmt: on


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register a function as the shape rule of ``ops``."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return register


@rule(*SAME)
def _same(node: ir.Node, facts: Facts) -> Shape | None:
    return facts.shape(node.inputs[0])


@rule(*BROADCAST)
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


@rule("MatMul")
def _matmul(node: ir.Node, facts: Facts) -> Shape | None:
    a, b = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    batch = broadcast(a[:-2], b[:-2])
    return None if batch is None else [*batch, a[-2], b[-1]]


@rule("Gemm")
def _gemm(node: ir.Node, facts: Facts) -> Shape | None:
    a, b = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    return [a[1 if ir.attribute(node, "transA", 0) else 0], b[0 if ir.attribute(node, "transB", 0) else 1]]


@rule("Conv", "MaxPool", "AveragePool", "LpPool")
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


@rule("ConvTranspose")
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


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(node: ir.Node, facts: Facts) -> Shape | None:
    x = facts.shape(node.inputs[0])
    return None if x is None else [*x[:2], *[1] * (len(x) - 2)]
