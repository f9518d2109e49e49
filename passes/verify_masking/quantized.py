"""Operators on quantized tensors, spelt out in real numbers: dequantize, compute, quantize without rounding.

Source: QuantizeLinear-21, DequantizeLinear-21, DynamicQuantizeLinear-11, QLinearConv-10, QLinearMatMul-10,
ConvInteger-10, MatMulInteger-10 of the ONNX operator specification, and com.microsoft-1 for the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.errors import ModelError
from passes.verify_masking.contractions import attribute
from passes.verify_masking.few_bits import matmul_nbits
from passes.verify_masking.levels import Writer

MICROSOFT = "com.microsoft"
Expansion = Callable[[Writer], object]


def _trailing(w: Writer) -> int:
    """Axes behind the one that scales run along; 0 where there is one scale."""
    if attribute(w.node, "block_size", 0):
        raise ModelError(f"blocked {w.node.op_type} has no relaxed form")
    if w.single(w.operand(1)):
        return 0
    axis, rank = attribute(w.node, "axis", 1), w.rank(w.operand(0))
    return rank - 1 - (axis + rank if axis < 0 else axis)


def _quantize_linear(w: Writer) -> None:
    kind = attribute(w.node, "output_dtype", 0)
    w.quantize(w.operand(0), w.operand(1), w.operand(2), w.node.output[0], _trailing(w), kind)


def _dequantize_linear(w: Writer) -> None:
    w.real(0, 1, 2, _trailing(w), output=w.node.output[0])


def _dynamic_quantize_linear(w: Writer) -> None:
    """scale = (max(0, x) - min(0, x)) / 255, zero point = -min / scale."""
    x, none = w.operand(0), w.number(0.0)
    low = w.emit("Min", [w.emit("ReduceMin", [x], keepdims=0), none])
    high = w.emit("Max", [w.emit("ReduceMax", [x], keepdims=0), none])
    span = w.emit("Max", [w.emit("Sub", [high, low]), w.number(1e-30)])
    scale = w.emit("Div", [span, w.number(255.0)])
    scalar = w.constant(np.zeros(0, np.int64))
    scale = w.emit("Reshape", [scale, scalar], w.node.output[1])
    zero = w.emit("Neg", [w.emit("Div", [w.emit("Reshape", [low, scalar]), scale])])
    zero = w.emit("Identity", [zero], w.node.output[2])
    w.quantize(x, scale, zero, w.node.output[0])


def _result(w: Writer, real: str, scale: int, zero: int) -> None:
    w.quantize(real, w.operand(scale), w.operand(zero), w.node.output[0])


def _qlinear_conv(w: Writer) -> None:
    weight = w.real(3, 4, 5, w.rank(w.operand(3)) - 1)
    inputs = [w.real(0, 1, 2), weight]
    if w.operand(8):
        inputs.append(w.dequantize(w.operand(8), w.emit("Mul", [w.operand(1), w.operand(4)]), ""))
    _result(w, w.emit("Conv", inputs, **w.attributes()), 6, 7)


def _conv_integer(w: Writer) -> None:
    one = w.number(1.0)
    x = w.dequantize(w.operand(0), one, w.operand(2))
    weight = w.dequantize(w.operand(1), one, w.operand(3), w.rank(w.operand(1)) - 1)
    w.emit("Conv", [x, weight], w.node.output[0], **w.attributes())


def _qlinear_matmul(w: Writer) -> None:
    _result(w, w.emit("MatMul", [w.real(0, 1, 2, 1), w.real(3, 4, 5)]), 6, 7)


def _matmul_integer(w: Writer) -> None:
    one = w.number(1.0)
    a = w.dequantize(w.operand(0), one, w.operand(2), 1)
    w.emit("MatMul", [a, w.dequantize(w.operand(1), one, w.operand(3))], w.node.output[0])


def _matmul_integer_to_float(w: Writer) -> None:
    _biased(w, w.emit("MatMul", [w.real(0, 2, 4, 1), w.real(1, 3, 5)]), 6)


def _dynamic_quantize_matmul(w: Writer) -> None:
    _biased(w, w.emit("MatMul", [w.operand(0), w.real(1, 2, 3)]), 4)


def _biased(w: Writer, y: str, slot: int) -> None:
    bias = w.operand(slot)
    w.emit("Add" if bias else "Identity", [y, bias] if bias else [y], w.node.output[0])


def _qgemm(w: Writer) -> None:
    """The int32 bias is in units of alpha * scale of a * scale of b."""
    inputs = [w.real(0, 1, 2), w.real(3, 4, 5, attribute(w.node, "transB", 0))]
    attributes = w.attributes()
    if w.operand(6):
        unit = w.emit("Mul", [w.operand(1), w.operand(4)])
        unit = w.emit("Mul", [unit, w.number(attributes.get("alpha", 1.0))])
        inputs.append(w.dequantize(w.operand(6), unit, ""))
    if w.operand(7):
        _result(w, w.emit("Gemm", inputs, **attributes), 7, 8)
    else:
        w.emit("Gemm", inputs, w.node.output[0], **attributes)


def _binary(op: str) -> Expansion:
    return lambda w: _result(w, w.emit(op, [w.real(0, 1, 2), w.real(3, 4, 5)]), 6, 7)


def _unary(op: str) -> Expansion:
    def expand(w: Writer) -> None:
        if attribute(w.node, "channels_last", 0):
            raise ModelError(f"{w.node.op_type} with its channels last has no relaxed form")
        _result(w, w.emit(op, [w.real(0, 1, 2)], **w.attributes("channels_last")), 3, 4)

    return expand


def _where(w: Writer) -> None:
    _result(w, w.emit("Where", [w.operand(0), w.real(1, 2, 3), w.real(4, 5, 6)]), 7, 8)


def _softmax(w: Writer) -> None:
    rank = w.rank(w.operand(0))
    last = attribute(w.node, "axis", -1) % rank == rank - 1
    if not last and (attribute(w.node, "opset", 0) < 13) != (w.opset < 13):
        raise ModelError("QLinearSoftmax of another opset has no relaxed form")
    _result(w, w.emit("Softmax", [w.real(0, 1, 2)], **w.attributes("opset")), 3, 4)


def _reduce_mean(w: Writer) -> None:
    attributes, inputs = w.attributes(), [w.real(0, 1, 2)]
    if w.opset >= 18 and "axes" in attributes:
        inputs.append(w.constant(np.array(attributes.pop("axes"), np.int64)))
    _result(w, w.emit("ReduceMean", inputs, **attributes), 3, 4)


def _concat(w: Writer) -> None:
    parts = [w.real(slot, slot + 1, slot + 2) for slot in range(2, len(w.node.input), 3)]
    _result(w, w.emit("Concat", parts, **w.attributes()), 0, 1)


EXPANSIONS: dict[tuple[str, str], Expansion] = {
    ("", "QuantizeLinear"): _quantize_linear,
    ("", "DequantizeLinear"): _dequantize_linear,
    (MICROSOFT, "QuantizeLinear"): _quantize_linear,
    (MICROSOFT, "DequantizeLinear"): _dequantize_linear,
    ("", "DynamicQuantizeLinear"): _dynamic_quantize_linear,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "ConvInteger"): _conv_integer,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "MatMulInteger"): _matmul_integer,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_integer_to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
    (MICROSOFT, "QGemm"): _qgemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearWhere"): _where,
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearAveragePool"): _unary("AveragePool"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _unary("GlobalAveragePool"),
    (MICROSOFT, "QLinearSoftmax"): _softmax,
    (MICROSOFT, "QLinearReduceMean"): _reduce_mean,
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "MatMulNBits"): matmul_nbits,
}
