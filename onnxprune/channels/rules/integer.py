"""Convolutions and products on 8-bit integers: the links of their float forms, and scales that go with the channels."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, present, rank, ref, size
from onnxprune.channels.links import Link, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.convolution import convolve, resize_groups
from onnxprune.channels.rules.product import multiply, multiply_matrices
from onnxprune.channels.rules.quantization import MICROSOFT, one_scale, over_all_elements, scales_of


@op_rule("QLinearConv")
def qlinear_conv(node: gs.Node, opset: int) -> Iterator[Link]:
    """x, its scale and zero point; w and its own, one or one an output channel; those of y; an int32 bias."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    one_scale(x_scale, x_zero, y_scale, y_zero)
    yield from convolve(node, x, w, present(node, 8))
    yield from scales_of(w, 0, w_scale, w_zero)


@op_rule("ConvInteger")
def conv_integer(node: gs.Node, opset: int) -> Iterator[Link]:
    """x, w, zero point of x, zero point of w; the int32 result is scaled by later nodes."""
    x, w = node.inputs[:2]
    one_scale(present(node, 2))
    yield from convolve(node, x, w, None)
    yield from scales_of(w, 0, present(node, 3))


@resize_hook("QLinearConv")
def resize_qlinear_conv(node: gs.Node, opset: int, cut: Cut) -> None:
    resize_groups(node, node.inputs[0], node.inputs[3], cut)


@resize_hook("ConvInteger")
def resize_conv_integer(node: gs.Node, opset: int, cut: Cut) -> None:
    resize_groups(node, node.inputs[0], node.inputs[1], cut)


@op_rule("QLinearMatMul")
def qlinear_matmul(node: gs.Node, opset: int) -> Iterator[Link]:
    """a, b and y, each with its scale and zero point; those of b may be a vector over its columns."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    one_scale(a_scale, a_zero, y_scale, y_zero)
    yield from multiply(a, b, node.outputs[0])
    yield from scales_of(b, -1, b_scale, b_zero)


@op_rule("MatMulInteger")
def matmul_integer(node: gs.Node, opset: int) -> Iterator[Link]:
    """a, b, zero point of a, zero point of b."""
    a, b = node.inputs[:2]
    one_scale(present(node, 2))
    yield from multiply(a, b, node.outputs[0])
    yield from scales_of(b, -1, present(node, 3))


@op_rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(node: gs.Node, opset: int) -> Iterator[Link]:
    """a, b, their scales, their zero points, and a bias over the columns."""
    a, b, a_scale, b_scale = node.inputs[:4]
    one_scale(a_scale, present(node, 4))
    yield from multiply(a, b, node.outputs[0])
    yield from scales_of(b, -1, b_scale, present(node, 5))
    yield from _bias(node, 6)


@op_rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: gs.Node, opset: int) -> Iterator[Link]:
    """a is float and quantized inside, by one scale over all of it; b, its scale and zero point, and a bias."""
    a, b, b_scale = node.inputs[:3]
    yield from multiply(a, b, node.outputs[0])
    yield from over_all_elements(a)
    yield from scales_of(b, -1, b_scale, present(node, 3))
    yield from _bias(node, 4)


@op_rule("QGemm", domain=MICROSOFT)
def qgemm(node: gs.Node, opset: int) -> Iterator[Link]:
    """a, b with their scales and zero points, an int32 bias; without scale and zero point for y the result is float."""
    a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
    one_scale(a_scale, a_zero, present(node, 7), present(node, 8))
    yield from multiply_matrices(node, a, b, present(node, 6))
    yield from scales_of(b, 0 if integer(node, "transB", 0) else 1, b_scale, b_zero)


def _bias(node: gs.Node, slot: int) -> Iterator[Link]:
    bias, y = present(node, slot), node.outputs[0]
    if bias is not None and size(y, rank(y) - 1) is not None:
        yield Tie(ref(y, -1), ref(bias, 0))
