"""Quantize a model by a scheme: what the passes and the search call."""

from __future__ import annotations

from onnxprune import ir
from onnxprune.stats import Feeds
from passes.quantization import dynamic, selection, static
from passes.quantization.scheme import Scheme


def quantize(model: ir.Model, feeds: Feeds, scheme: Scheme) -> ir.Model:
    """An 8-bit copy of `model`, checked and run once.

    Raises ModelError, one line, where that is impossible: nothing to quantize, an opset that cannot be raised, or a result that is invalid.
    Deterministic: same model, feeds and scheme give the same model.
    """
    if scheme.kind == "dynamic":
        return static.proven(dynamic.quantize_dynamic(model, scheme), feeds)
    return static.quantize_static(model, feeds, scheme)


def fake_quantize_for_latency(model: ir.Model, scheme: Scheme, feeds: Feeds | None = None) -> ir.Model:
    """A model with the structure that `quantize` gives and cheap ranges, to measure its latency; synthetic inputs when `feeds` is None."""
    if scheme.kind == "dynamic":
        return dynamic.quantize_dynamic(model, scheme)
    return static.quantize_static_for_latency(model, feeds or Feeds.synthetic(model, static.LATENCY_SAMPLES, 0), scheme)


def quantizable(model: ir.Model, kind: str = "static") -> list[str]:
    """Keys of the contractions that can run in 8 bits, in graph order: what `Scheme.exclude` may name."""
    nodes = dynamic.products(model) if kind == "dynamic" else selection.contractions(model)
    return [ir.node_key(node) for node in nodes]
