"""Brings a product and its bias together: the 8-bit kernel of Gemm adds the bias, that of MatMul cannot."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir


def join_biases(model: ir.Model) -> int:
    """`Add(MatMul(x, w), b)` -> `Gemm(x, w, b)`, in place, where x has two axes and w and b are constants; returns how
    often. ONNX Runtime would do the same after quantization, and so leave the product in float.
    """
    fixed = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    joined = set()
    for node in model.graph.nodes:
        add = _bias_add(node, fixed)
        if add is None:
            continue
        product = node.outputs[0]
        bias = next(tensor for tensor in add.inputs if tensor is not product)
        result = add.outputs[0]
        add.inputs, add.outputs = [], []
        node.op, node.attrs, node.inputs, node.outputs = "Gemm", {}, [*node.inputs, bias], [result]
        joined.add(id(add))
    model.graph.nodes = [node for node in model.graph.nodes if id(node) not in joined]
    return len(joined)


def _bias_add(node: gs.Node, fixed: set[str]) -> gs.Node | None:
    if node.op != "MatMul" or ir.domain(node) or node.inputs[0].shape is None or len(node.inputs[0].shape) != 2:
        return None
    weight = ir.constant(node.inputs[1])
    readers = ir.consumers(node.outputs[0])
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or len(readers) != 1:
        return None
    add = readers[0]
    others = [ir.constant(tensor) for tensor in add.inputs if tensor is not node.outputs[0]]
    if add.op != "Add" or ir.domain(add) or node.outputs[0].name in fixed or len(others) != 1 or others[0] is None:
        return None
    fits = others[0].dtype == np.float32 and others[0].shape in ((weight.shape[1],), (1, weight.shape[1]))
    return add if fits else None
