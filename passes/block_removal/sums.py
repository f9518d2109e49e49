"""The nodes at which a residual branch ends: an Add, or a normalisation that sums its two operands first.

SkipLayerNormalization(input, skip, gamma, beta, bias) of com.microsoft normalises input + skip + bias and may give the
sum as its fourth output; SkipSimplifiedLayerNormalization(input, skip, gamma, bias) is the same without a mean.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune import ir

_FUSED_DOMAIN = "com.microsoft"
_FUSED = {
    "SkipLayerNormalization": ("LayerNormalization", 17),
    "SkipSimplifiedLayerNormalization": ("RMSNormalization", 23),
}
_EPSILON = 1e-12  # what the fused operators take where the attribute is left out
_SUM = 3


def is_sum(node: gs.Node, opset: int) -> bool:
    """Whether the node sums two tensors, and can be rewritten to take one of them at this opset of the model."""
    if len(node.inputs) < 2 or node.inputs[0] is node.inputs[1]:
        return False
    if not ir.domain(node):
        return bool(node.op == "Add")
    alone, since = _FUSED.get(node.op, ("", 0))
    statistics = any(tensor.name for tensor in node.outputs[1:_SUM])
    return ir.domain(node) == _FUSED_DOMAIN and bool(alone) and opset >= since and not statistics


def sum_of(node: gs.Node) -> gs.Tensor | None:
    """The tensor that holds the sum; None where a fused node does not give it away."""
    if not ir.domain(node):
        return node.outputs[0]
    return node.outputs[_SUM] if len(node.outputs) > _SUM and node.outputs[_SUM].name else None


def normalize_alone(model: ir.Model, node: gs.Node, kept: gs.Tensor) -> gs.Tensor:
    """Rewrites a fused node so that it normalises ``kept`` (and its bias) alone; returns what stands for the sum."""
    place = next(index for index, other in enumerate(model.graph.nodes) if other is node)
    total, output = sum_of(node), node.outputs[0]
    gamma, rest = node.inputs[2], list(node.inputs[3:])
    beta = rest.pop(0) if rest and node.op == "SkipLayerNormalization" else None
    alone, _ = _FUSED[node.op]
    if rest and rest[0].name:
        name = ir.free_name(f"{kept.name}.biased", ir.tensors(model))
        shifted = ir.Variable(name, kept.dtype, kept.shape)
        model.graph.nodes.insert(place, ir.Node("Add", "", {}, inputs=[kept, rest[0]], outputs=[shifted]))
        place, kept = place + 1, shifted
    if total is not None:
        redirect(total, kept)
    epsilon = float(ir.attribute(node, "epsilon", _EPSILON))
    operands = [tensor for tensor in (kept, gamma, beta) if tensor is not None and tensor.name]
    node.inputs.clear()
    node.outputs.clear()
    attributes = {"axis": -1, "epsilon": epsilon}
    model.graph.nodes[place] = ir.Node(alone, node.name, attributes, inputs=operands, outputs=[output])
    return kept


def redirect(tensor: gs.Tensor, new: gs.Tensor) -> None:
    """Readers of ``tensor`` read ``new``."""
    for user in ir.consumers(tensor):
        for place, operand in enumerate(user.inputs):
            if operand is tensor:
                user.inputs[place] = new
