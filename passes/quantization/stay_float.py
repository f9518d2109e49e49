"""Keeps contractions that were left in float in float.

ONNX Runtime (1.21 and later) gives a Conv, ConvTranspose or Gemm with float weights an 8-bit weight of one scale where
its input comes from DequantizeLinear with one scale and its result goes to QuantizeLinear, directly or through ReLU and
Clip (its WeightBiasQuantization). Two forms of equal value are not recognised:

1. a convolution whose DequantizeLinear has a scale a channel, all of them equal;
2. a Gemm whose bias has two axes (a scale a channel is slow where channels come last).
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.objects import Constant, Node, Variable

_AXIS = 1
_PASSED = frozenset({"Relu", "Clip"})


def stay_float(model: ir.Model) -> int:
    """Applies both forms in place; returns how often."""
    count = 0
    for node in list(model.graph.nodes):
        if node.op in ("Conv", "ConvTranspose", "Gemm") and not ir.domain(node) and _would_be_quantized(node):
            count += _two_axes(node) if node.op == "Gemm" else _scale_a_channel(model, node)
    return count


def _would_be_quantized(node: gs.Node) -> bool:
    weight, source = ir.constant(node.inputs[1]), ir.producer(node.inputs[0])
    if weight is None or weight.dtype != np.float32 or source is None or source.op != "DequantizeLinear":
        return False
    scale = ir.constant(source.inputs[1])
    return scale is not None and scale.size == 1 and _reaches_quantize(node)


def _reaches_quantize(node: gs.Node) -> bool:
    while len(readers := ir.consumers(node.outputs[0])) == 1:
        node = readers[0]
        if node.op == "QuantizeLinear":
            return True
        if node.op not in _PASSED:
            return False
    return False


def _scale_a_channel(model: ir.Model, node: gs.Node) -> int:
    weight, shared = np.asarray(ir.constant(node.inputs[1])), ir.producer(node.inputs[0])
    assert shared is not None
    channels = weight.shape[0] if node.op == "ConvTranspose" else weight.shape[1] * int(node.attrs.get("group", 1))
    if channels == 1:
        return 0  # one channel is one scale: nothing tells it apart
    key = ir.node_key(node)
    values = [np.asarray(ir.constant(tensor)).reshape(-1) for tensor in shared.inputs[1:3]]
    wide = [
        Constant(f"{key}__float_{name}", np.repeat(value, channels))
        for name, value in zip(("scale", "zero_point"), values, strict=False)
    ]
    data = Variable(f"{key}__float_input", np.dtype(np.float32), node.inputs[0].shape)
    own = Node("DequantizeLinear", data.name, {"axis": _AXIS}, [shared.inputs[0], *wide], [data])
    node.inputs[0] = data
    model.graph.nodes.insert(next(k for k, item in enumerate(model.graph.nodes) if item is node), own)
    return 1


def _two_axes(node: gs.Node) -> int:
    bias = ir.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    weight = np.asarray(ir.constant(node.inputs[1]))
    outputs = weight.shape[0 if node.attrs.get("transB", 0) else 1]
    if bias is None:
        bias = np.zeros(outputs, np.float32)
    if bias.ndim != 1:
        return 0
    wide = Constant(f"{ir.node_key(node)}__float_bias", bias.reshape(1, -1))
    node.inputs = [*node.inputs[:2], wide]
    return 1
