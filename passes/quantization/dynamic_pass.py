"""The pass `quantize-dynamic`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.quantization import static_pass
from passes.quantization.scheme import Scheme


@dataclass(frozen=True)
class QuantizeDynamic:
    """Run matrix products on 8-bit integers, with activation ranges measured in every run.

    Rewrites:
      1. MatMul with a constant float32 matrix becomes DynamicQuantizeLinear, MatMulInteger, Cast and Mul, which ONNX
         Runtime fuses into one kernel.
      2. Gemm with a constant matrix becomes MatMul and Add first.
    Requires: nothing; calibration inputs in the context judge the result.
    Guarantees: the result passes the full checker, loads and runs, and drifts at most ``max_drift``; otherwise the
    model is left as it is, with a skip that says why. Opsets below 13 are raised, and the skips say so. Leaves alone:
    Conv (its dynamic kernel is slower than float), nodes in ``exclude`` and in subgraphs, products of two activations,
    overridable initializers.
    Options: ``per_channel`` (default true), ``reduce_range`` (7-bit weights, default none: as this CPU needs it),
    ``exclude`` (node keys), ``max_drift`` (largest relative output error, default 0.5).
    References: ONNX operator specification, DynamicQuantizeLinear and MatMulInteger.
    """

    per_channel: bool = True
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()
    max_drift: float = 0.5

    name: ClassVar[str] = "quantize-dynamic"
    promise: ClassVar[Promise] = "lossy"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Quantize a copy, judge it, and take it over."""
        scheme = Scheme("dynamic", exclude=self.exclude, per_channel=self.per_channel, reduce_range=self.reduce_range)
        return static_pass.apply(model, ctx, scheme, self.max_drift)
