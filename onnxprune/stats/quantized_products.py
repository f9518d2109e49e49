"""Contractions of quantized operators, as products of real numbers: levels less their zero point, which is a constant
factor away from what they stand for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.facts import present
from onnxprune.stats.product import Product, convolution, matrix_product, stacked_product

Reader = Callable[[gs.Node], Product | None]


def _data(node: gs.Node, zero: int) -> tuple[str, float] | None:
    """The tensor to read the first operand's columns from, and its level of zero; None where that is computed.

    Behind DynamicQuantizeLinear it is the float tensor itself.
    """
    x = node.inputs[0]
    maker = ir.producer(x)
    if maker is not None and maker.op == "DynamicQuantizeLinear":
        return str(maker.inputs[0].name), 0.0
    tensor = present(node, zero)
    if tensor is None:
        return str(x.name), 0.0
    values = ir.constant(tensor)
    return None if values is None or values.size != 1 else (str(x.name), float(np.asarray(values).reshape(())))


def _read(make: Callable[[gs.Node, gs.Tensor], Product | None], weight: int, zero: int) -> Reader:
    def read(node: gs.Node) -> Product | None:
        data, tensor = _data(node, zero), node.inputs[weight]
        if data is None or not isinstance(tensor, gs.Constant):
            return None
        product = make(node, tensor)
        return None if product is None else product.on(*data)

    return read


def _float_data(node: gs.Node) -> Product | None:
    """DynamicQuantizeMatMul quantizes its own float operand."""
    tensor = node.inputs[1]
    product = stacked_product(node, tensor) if isinstance(tensor, gs.Constant) else None
    return None if product is None else product.on(product.data, 0.0)


QUANTIZED_READERS: dict[tuple[str, str], Reader] = {
    ("", "QLinearConv"): _read(convolution, 3, 2),
    ("", "ConvInteger"): _read(convolution, 1, 2),
    ("", "QLinearMatMul"): _read(stacked_product, 3, 2),
    ("", "MatMulInteger"): _read(stacked_product, 1, 2),
    ("com.microsoft", "QGemm"): _read(matrix_product, 3, 2),
    ("com.microsoft", "MatMulIntegerToFloat"): _read(stacked_product, 1, 4),
    ("com.microsoft", "DynamicQuantizeMatMul"): _float_data,
}
