"""Element types and shapes of a model, inferred afresh: recorded ones may be stale or wrong."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir.shapes import clear_shapes


def refresh(model: ir.Model) -> None:
    """Infer the dtype and shape of every tensor between inputs and outputs, in place; the signature stays as it is.

    A tensor that inference says nothing about has no shape afterwards, and keeps its recorded dtype.
    """
    inferred = infer(model)
    outputs = {tensor.name for tensor in model.graph.outputs} | {tensor.name for tensor in model.graph.inputs}
    for tensor in model.all_tensors():
        if isinstance(tensor, gs.Variable) and tensor.name not in outputs and tensor.name in inferred:
            twin = inferred[tensor.name]
            tensor.dtype, tensor.shape = twin.dtype, twin.shape


def infer(model: ir.Model) -> dict[str, gs.Tensor]:
    """Return freshly inferred twins of all tensors by name, graph outputs included; empty when inference fails."""
    twin = model.copy()
    clear_shapes(twin)
    for tensor in ir.feed_inputs(twin):
        if tensor.shape is not None:
            # 0 and -1 are how some exporters write a size that they do not know
            tensor.shape = [None if isinstance(size, int) and size < 1 else size for size in tensor.shape]
    try:
        ir.infer_shapes(twin)
    except ModelError:
        return {}
    return ir.tensors(twin)
