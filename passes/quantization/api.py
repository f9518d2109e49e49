"""Quantize a model by a scheme: what the passes and the search call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Feeds, model_drift
from passes.quantization import dynamic, half, selection, static, weight_only
from passes.quantization.scheme import Scheme
from passes.quantization.sensitivity import ranking, sensitivity

_MARKS = ("QuantizeLinear", "DequantizeLinear", "QLinear", "QGemm", "MatMulInteger", "ConvInteger", "QuantizeMatMul")


def quantize(model: ir.Model, feeds: Feeds, scheme: Scheme) -> ir.Model:
    """A quantized copy of `model`, checked and run once.

    Raises ModelError, one line, where that is impossible: nothing to quantize, an opset that cannot be raised, or a
    result that is invalid. Deterministic: same model, feeds and scheme give the same model.
    """
    if scheme.kind == "dynamic":
        return static.proven(dynamic.quantize_dynamic(model, scheme), feeds)
    if scheme.kind == "weight-only":
        return static.proven(weight_only.quantize_weights(model, feeds, scheme), feeds)
    if scheme.kind == "float16":
        return static.proven(half.halve(model, feeds, scheme), feeds)
    return static.quantize_static(model, feeds, scheme)


def fake_quantize_for_latency(model: ir.Model, scheme: Scheme, feeds: Feeds | None = None) -> ir.Model:
    """A model with the structure that `quantize` gives and cheap ranges, to measure its latency.

    Ranges come from two samples of `feeds`, or of synthetic inputs when it is None.
    """
    if scheme.kind == "dynamic":
        return dynamic.quantize_dynamic_for_latency(model, scheme)
    if scheme.kind == "weight-only":
        return weight_only.quantize_weights(model, None, scheme)
    if scheme.kind == "float16":
        return half.halve(model, feeds, scheme)
    return static.quantize_static_for_latency(model, feeds or Feeds.synthetic(model, static.LATENCY_SAMPLES, 0), scheme)


def is_quantized(model: ir.Model) -> bool:
    """Whether any weight or activation is quantized already: such a model is not quantized again."""
    return any(any(mark in node.op for mark in _MARKS) for node in model.graph.nodes)


def quantizable(model: ir.Model, kind: str = "static") -> list[str]:
    """Keys of the contractions that can run in 8 bits, in graph order: what `Scheme.exclude` may name."""
    model = model.copy()
    static.simplify(model)
    nodes = dynamic.products(model) if kind != "static" else selection.contractions(model)
    return [ir.node_key(node) for node in nodes]


def quantized_nodes(model: ir.Model) -> int:
    """How many contractions of a quantized model run in 8 or 16 bits, or on 4-bit weights."""
    return sum(node.op in ("MatMulInteger", "MatMulNBits") or _reads_few_bits(node) for node in model.graph.nodes)


def _reads_few_bits(node: gs.Node) -> bool:
    if node.op not in selection.CONTRACTIONS:
        return False
    source = ir.producer(node.inputs[0])
    return node.inputs[1].dtype == np.float16 or (source is not None and source.op == "DequantizeLinear")


def choose_exclusions(model: ir.Model, feeds: Feeds, scheme: Scheme, limit: float, samples: int = 32) -> Scheme | None:
    """`scheme` with the most harmful contractions excluded, as few as a doubling search finds, so that no output drifts
    more than `limit`; None where even half of them in float do not suffice. Static schemes only.
    """
    judged = feeds.spread(samples)
    quantized = quantize(model, feeds, scheme)
    order: list[str] = []
    count = 0
    while max(model_drift(model, quantized, judged, batch=8, threads=1).values(), default=0.0) > limit:
        order = order or ranking(sensitivity(model, quantized, feeds))
        count = max(1, 2 * count)
        if 2 * count > len(order):
            return None
        scheme = replace(scheme, exclude=tuple(dict.fromkeys([*scheme.exclude, *order[:count]])))
        quantized = quantize(model, feeds, scheme)
    return scheme
