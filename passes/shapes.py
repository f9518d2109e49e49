"""Element types and shapes of a model, inferred afresh: recorded ones may be stale or wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import onnx
import onnx.shape_inference
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.functions import check_functions
from onnxprune.ir.light import typed
from onnxprune.ir.types import tensor_type, without_invented


class Type(NamedTuple):
    """What inference found out about a tensor: numpy dtype, and sizes (a number, a name, or None) or None."""

    dtype: Any
    shape: list[int | str | None] | None


def refresh(model: ir.Model) -> None:
    """Infer the dtype and shape of every tensor between inputs and outputs, in place; the signature stays as it is.

    A tensor that inference says nothing about keeps its recorded dtype and has no shape afterwards.
    """
    inferred = infer(model)
    if not inferred:
        return
    signature = {tensor.name for tensor in (*model.graph.outputs, *model.graph.inputs)}
    for tensor in model.all_tensors():
        if isinstance(tensor, gs.Variable) and tensor.name not in signature and tensor.dtype is not None:
            tensor.shape = None
        if isinstance(tensor, gs.Variable) and tensor.name not in signature and tensor.name in inferred:
            tensor.dtype, tensor.shape = inferred[tensor.name]


def infer(model: ir.Model) -> dict[str, Type]:
    """Return what ONNX shape inference finds when it starts from inputs and initializers alone; empty when it fails.

    Recorded element types stay as hints for operators that have no inference.
    """
    check_functions(model.header, (node.op for node in model.graph.nodes))
    proto = typed(model)
    graph = proto.graph
    fed = {tensor.name for tensor in ir.feed_inputs(model)}
    for info in graph.input:
        for size in info.type.tensor_type.shape.dim if info.name in fed else ():
            if size.HasField("dim_value") and size.dim_value < 1:
                # 0 and -1 are how some exporters write a size that they do not know
                size.ClearField("dim_value")
    try:
        done = onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=False)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return {}
    found = {}
    for info in (*done.graph.input, *done.graph.value_info, *done.graph.output):
        dtype, shape = tensor_type(info)
        if dtype is not None:
            found[info.name] = Type(dtype, without_invented(shape))
    return found
