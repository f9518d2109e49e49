"""The relaxed form of a model of reduced precision: the same computation in float32, without rounding in between.

A quantized model rounds after every operator, so a difference in the last bit of a float may become a whole step, and
no tolerance on the outputs tells that from a mistake. Relaxed, an 8-bit tensor holds its levels as real numbers:
QuantizeLinear is `clip(x / scale + zero, low, high)` without the rounding, and an operator on quantized tensors is the
float operator between DequantizeLinear and that. float16 and bfloat16 become float32. Scales, zero points, clipping
and all weights are those of the model. Two models whose relaxed forms agree differ in rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from passes.verify_masking.execution import Call
from passes.verify_masking.levels import LEVELS, Writer
from passes.verify_masking.quantized import EXPANSIONS

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_MARKS = ("Quantize", "QLinear", "Integer", "QGemm", "QAttention", "NBits")


@dataclass(frozen=True)
class Relaxed:
    """The float32 `model`; `origin`: new tensor -> the tensor of the given model whose elements it holds."""

    model: onnx.ModelProto
    origin: Mapping[str, str]


def is_reduced(model: onnx.ModelProto) -> bool:
    """Whether the model computes in less than float32 anywhere."""
    return any(_is_quantized(node) for node in model.graph.node) or any(
        tensor.data_type in _NARROW for tensor in model.graph.initializer
    )


def relaxed(model: onnx.ModelProto) -> Relaxed:
    """The relaxed form. Raises ModelError for an operator whose relaxed form is not known, and for subgraphs."""
    writer = Writer(model)
    for tensor in writer.model.graph.initializer:
        _widen(tensor)
    for info in (*writer.model.graph.input, *writer.model.graph.output):
        kind = info.type.tensor_type
        if kind.elem_type in _NARROW:
            kind.elem_type = TensorProto.FLOAT
    _open_inputs(writer)
    for node in model.graph.node:
        _relax(node, writer)
    _close_outputs(writer)
    return Relaxed(writer.finish(), writer.origin)


def widened(call: Call) -> Call:
    """Feeds for the relaxed form."""
    return {n: a.astype(np.float32) if a.dtype.name in ("float16", "bfloat16") else a for n, a in call.items()}


def _is_quantized(node: onnx.NodeProto) -> bool:
    return any(mark in node.op_type for mark in _MARKS) and node.domain in ("", "ai.onnx", "com.microsoft")


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW or tensor.data_type in LEVELS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _open_inputs(writer: Writer) -> None:
    """8-bit inputs keep their type; what is behind them reads their levels."""
    for info in writer.model.graph.input:
        if info.type.tensor_type.elem_type in LEVELS:
            name = writer.emit("Cast", [info.name], f"{info.name}/levels", to=TensorProto.FLOAT)
            writer.renamed[info.name] = name
            writer.origin[name] = info.name


def _close_outputs(writer: Writer) -> None:
    for info in writer.model.graph.output:
        if info.type.tensor_type.elem_type in LEVELS:
            info.type.tensor_type.elem_type = TensorProto.FLOAT


def _relax(node: onnx.NodeProto, writer: Writer) -> None:
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        raise ModelError(f"{node.op_type} carries a subgraph, which has no relaxed form")
    domain = "" if node.domain == "ai.onnx" else node.domain
    expansion = EXPANSIONS.get((domain, node.op_type))
    if expansion is not None:
        expansion(writer.at(node))
        return
    if _is_quantized(node):
        raise ModelError(f"{node.op_type} has no relaxed form")
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    for slot, name in enumerate(twin.input):
        twin.input[slot] = writer.renamed.get(name, name)
    for attribute in twin.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            _widen(attribute.t)
        elif attribute.name in ("to", "dtype") and attribute.i in _NARROW:
            attribute.CopyFrom(helper.make_attribute(attribute.name, TensorProto.FLOAT))
    writer.nodes.append(twin)
