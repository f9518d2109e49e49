"""Shape functions of the quantized operators of com.microsoft: those of the standard operators that they stand for.

Source: the operators' specification, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference
import onnx_graphsurgeon as gs

from onnxprune.ir.exporter import node_proto
from onnxprune.ir.query import attribute
from onnxprune.ir.types import ShapeFunction, TensorType, tensor_type, value_info

_FLOAT = np.dtype(np.float32)
_OPSET = 17  # the newest whose ReduceMean still has its axes in an attribute, as QLinearReduceMean has
_UNKNOWN_TO_STANDARD = ("channels_last", "opset")

Types = Sequence[TensorType | None]
Slots = Callable[[int], Sequence[int]]


def _like(op: str, slots: Slots, result: int | None) -> ShapeFunction:
    """Shapes of the standard operator `op` on the operands in `slots` (of the number of inputs).

    The element type is that of input `result` (None, or an input that is left out: float32).
    """

    def shapes(node: gs.Node, inputs: Types) -> Types:
        operands = [inputs[slot] for slot in slots(len(inputs)) if slot < len(inputs)]
        found = None if None in operands or attribute(node, "channels_last", 0) else _inferred(op, node, operands)
        given = inputs[result] if result is not None and result < len(inputs) else None
        return [None if found is None else TensorType(_FLOAT if given is None else given.dtype, found)]

    return shapes


def _inferred(op: str, node: gs.Node, operands: Types) -> Sequence[int | str | None] | None:
    names = [f"x{slot}" for slot in range(len(operands))]
    twin = onnx.helper.make_node(op, names, ["y"])
    twin.attribute.extend(a for a in node_proto(node).attribute if a.name not in _UNKNOWN_TO_STANDARD)
    infos = [value_info(name, _FLOAT, x.shape, None) for name, x in zip(names, operands, strict=True) if x is not None]
    types = {info.name: info.type for info in infos if info is not None}
    schema = onnx.defs.get_schema(op, _OPSET)
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, twin, types, opset_imports=[onnx.helper.make_opsetid("", _OPSET)]
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return None
    return tensor_type(onnx.ValueInfoProto(name="y", type=found["y"]))[1] if "y" in found else None


def _dequantized(node: gs.Node, inputs: Types) -> Types:
    x, scale = inputs[:2]
    return [None if x is None else TensorType(_FLOAT if scale is None else scale.dtype, x.shape)]


def _quantized(node: gs.Node, inputs: Types) -> Types:
    x = inputs[0]
    zero = inputs[2] if len(inputs) > 2 else None
    return [None if x is None else TensorType(np.dtype(np.uint8) if zero is None else zero.dtype, x.shape)]


def _first(count: int) -> Slots:
    return lambda inputs: range(count)


def _pair(inputs: int) -> Sequence[int]:
    return (0, 3)


QUANTIZED_SHAPES: dict[tuple[str, str], ShapeFunction] = {
    ("com.microsoft", op): function
    for op, function in {
        "DequantizeLinear": _dequantized,
        "DynamicQuantizeMatMul": _like("MatMul", _first(2), None),
        "MatMulIntegerToFloat": _like("MatMul", _first(2), 2),
        "QGemm": _like("Gemm", _pair, 8),
        "QLinearAdd": _like("Add", _pair, 0),
        "QLinearAveragePool": _like("AveragePool", _first(1), 0),
        "QLinearConcat": _like("Concat", lambda inputs: range(2, inputs, 3), 2),
        "QLinearGlobalAveragePool": _like("GlobalAveragePool", _first(1), 0),
        "QLinearLeakyRelu": _like("LeakyRelu", _first(1), 0),
        "QLinearMul": _like("Mul", _pair, 0),
        "QLinearReduceMean": _like("ReduceMean", _first(1), 0),
        "QLinearSigmoid": _like("Identity", _first(1), 0),
        "QLinearSoftmax": _like("Softmax", _first(1), 0),
        "QLinearWhere": _like("Add", lambda inputs: (1, 4), 1),
        "QuantizeLinear": _quantized,
    }.items()
}
