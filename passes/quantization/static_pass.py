"""The pass `quantize-static`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.pipeline import PassContext, PassResult, Promise, Skip
from onnxprune.stats import Feeds, model_drift
from passes.quantization import api
from passes.quantization.scheme import Activation, Calibration, Scheme

SYNTHETIC_SAMPLES = 32


@dataclass(frozen=True)
class QuantizeStatic:
    """Run convolutions and matrix products, and the glue between them, on 8-bit integers with calibrated ranges.

    Rewrites:
      1. Every Conv, Gemm and MatMul with a constant float32 weight, and glue with an 8-bit kernel behind one of them,
         is put between QuantizeLinear and DequantizeLinear; weights become int8, biases int32.
      2. Pad, Slice, DepthToSpace and SpaceToDepth between conversions of one scale work on the 8-bit tensor.
      3. A Gemm or MatMul whose result no 8-bit operator reads writes float.
      4. With ``refine``, weights are rounded for small output error, and mean outputs restored through the biases.
    Requires: calibration inputs in the context (synthetic ones are drawn otherwise, which is only good for latency).
    Guarantees: the result passes the full checker, loads and runs, and drifts at most ``max_drift``; otherwise the
    model is left as it is, with a skip that says why. Opsets below 13 are raised, and the skips say so. Leaves alone:
    nodes in ``exclude``, ConvTranspose and other operators without an 8-bit kernel on the CPU provider, nodes in
    subgraphs, overridable initializers; weights and biases that float nodes also read stay float for those.
    Options: ``activation`` (u8 or s8, default u8), ``calibration`` (auto, readers, minmax, percentile or mse,
    default auto), ``per_channel`` (default true), ``reduce_range`` (7-bit weights, default none: as this CPU needs it),
    ``refine`` (default true), ``exclude`` (node keys), ``max_drift`` (largest relative output error, default 0.5).
    References: ONNX operator specification, QuantizeLinear; arXiv:1712.05877, section 2; arXiv:1906.04721, section 4.2;
    arXiv:2210.17323, section 3.
    """

    activation: Activation = "u8"
    calibration: Calibration = "auto"
    per_channel: bool = True
    reduce_range: bool | None = None
    refine: bool = True
    exclude: tuple[str, ...] = ()
    max_drift: float = 0.5

    name: ClassVar[str] = "quantize-static"
    promise: ClassVar[Promise] = "lossy"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Quantize a copy, judge it, and take it over."""
        scheme = Scheme(
            "static",
            self.activation,
            self.calibration,
            self.exclude,
            self.per_channel,
            self.reduce_range,
            self.refine,
        )
        return apply(model, ctx, scheme, self.max_drift)


def apply(model: ir.Model, ctx: PassContext, scheme: Scheme, max_drift: float) -> PassResult:
    """Quantize `model` in place by `scheme` unless that fails or drifts more than `max_drift`."""
    where = ir.node_key(model.graph.nodes[0]) if model.graph.nodes else ""
    if api.is_quantized(model):
        return PassResult(False, skips=(Skip(where, "the model is quantized already"),))
    feeds = ctx.feeds if ctx.feeds is not None else Feeds.synthetic(model, SYNTHETIC_SAMPLES, ctx.seed)
    try:
        quantized = api.quantize(model, feeds, scheme)
        judged = feeds.spread(SYNTHETIC_SAMPLES)
        drift = max(model_drift(model, quantized, judged, batch=8, threads=1).values(), default=0.0)
    except ModelError as error:
        return PassResult(False, skips=(Skip(where, str(error)),))
    if not drift <= max_drift:
        return PassResult(False, skips=(Skip(where, f"outputs would drift by {drift:.3g}, more than {max_drift:.3g}"),))
    raised = model.opset() < quantized.opset()
    notes = (Skip(where, f"opset raised from {model.opset()} to {quantized.opset()}"),) if raised else ()
    model.graph, model.header, model.loose = quantized.graph, quantized.header, quantized.loose
    return PassResult.of({"nodes": api.quantized_nodes(model)}, notes)
