"""Dynamic quantization: MatMul and Gemm with weights in s8, ranges of activations measured in every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir.objects import Constant, Node, Variable
from passes.quantization import qdq, selection, static, uniform
from passes.quantization.scheme import Scheme


def quantize_dynamic_for_latency(model: ir.Model, scheme: Scheme) -> ir.Model:
    """The form that `quantize_dynamic` gives, in less time: with one scale for all channels of a weight."""
    quantized = quantize_dynamic(model, replace(scheme, per_channel=False))
    if scheme.per_channel:
        uniform.spell_out(quantized)
    return quantized


def quantize_dynamic(model: ir.Model, scheme: Scheme) -> ir.Model:
    """A copy of `model` whose constant-weight MatMul and Gemm nodes run as DynamicQuantizeLinear and MatMulInteger.

    Conv stays in float: ConvInteger is slower than the float kernel. Raises ModelError where there is nothing to
    quantize.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    prepared = static.prepare(model)
    chosen = [node for node in products(prepared) if ir.node_key(node) not in scheme.exclude]
    if not chosen:
        raise ModelError("no MatMul or Gemm with a constant float32 weight is left to quantize")
    qdq.own_constants(prepared, chosen)
    _spell_gemm_out(prepared, chosen)
    proto = ir.to_proto(prepared)
    qdq.with_types(proto, prepared)
    producer = (proto.producer_name, proto.producer_version)
    names = [node.name for node in chosen]
    with qdq.quiet():
        quantizer = ONNXQuantizer(
            proto,
            scheme.per_channel,
            scheme.seven_bits,
            QuantizationMode.IntegerOps,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            None,
            names,
            [],
            ["MatMul"],
            {"MatMulConstBOnly": True},
        )
        try:
            quantizer.quantize_model()
        except (ValueError, TypeError, KeyError, RuntimeError, AssertionError, AttributeError, IndexError) as error:
            raise ModelError(
                f"ONNX Runtime's quantizer refuses the model: {' '.join(str(error).split())[:200]}"
            ) from None
    result: onnx.ModelProto = quantizer.model.model
    result.producer_name, result.producer_version = producer
    quantized = ir.from_proto(qdq.without_marker(result))
    ir.topological_sort(quantized)
    return quantized


def products(model: ir.Model) -> list[gs.Node]:
    """MatMul and Gemm nodes with a constant float32 weight, in graph order."""
    return [node for node in selection.contractions(model) if node.op != "Conv"]


def _spell_gemm_out(model: ir.Model, chosen: Sequence[gs.Node]) -> None:
    """`Gemm(x, w, b)` -> `Add(MatMul(x, w), b)`, in place: only MatMul has a dynamic form."""
    position = {id(node): k for k, node in enumerate(model.graph.nodes)}
    added: dict[int, gs.Node] = {}
    for node in chosen:
        if node.op != "Gemm":
            continue
        weight = ir.constant(node.inputs[1])
        if node.attrs.get("transB", 0) and weight is not None:
            node.inputs[1] = Constant(
                f"{node.inputs[1].name}_of_{ir.node_key(node)}_transposed", np.ascontiguousarray(weight.T)
            )
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        node.op, node.attrs, node.inputs = "MatMul", {}, list(node.inputs[:2])
        if bias is not None:
            result = node.outputs[0]
            product = Variable(f"{result.name}_product", result.dtype, result.shape)
            node.outputs = [product]
            added[position[id(node)]] = Node("Add", f"{node.name}_bias", {}, [product, bias], [result])
    model.graph.nodes = [
        item for k, node in enumerate(model.graph.nodes) for item in (node, added.get(k)) if item is not None
    ]
