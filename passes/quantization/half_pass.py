"""The pass `to-float16`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.quantization import static_pass
from passes.quantization.scheme import Scheme


@dataclass(frozen=True)
class ToFloat16:
    """Run a float32 model in half precision, its inputs and outputs as they were.

    Rewrites:
      1. Weights and activations become float16, with Casts behind the inputs and before the outputs.
      2. Constants that stand for infinity (1e9 and larger) become large numbers of half precision.
    Requires: calibration inputs in the context, which show the values that are too large (synthetic ones are drawn
    otherwise).
    Guarantees: the result passes the full checker, loads and runs, and drifts at most ``max_drift``; otherwise the
    model is left as it is, with a skip that says why. Leaves alone: operators that have no float16 form, nodes in
    ``exclude``, with subgraphs, or with values over a half of what float16 can hold; they stay float32 between Casts.
    Options: ``exclude`` (node keys), ``max_drift`` (largest relative output error, default 0.5).
    References: IEEE 754-2019, binary16; ONNX operator specification, Cast.
    """

    exclude: tuple[str, ...] = ()
    max_drift: float = 0.5

    name: ClassVar[str] = "to-float16"
    promise: ClassVar[Promise] = "lossy"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Convert a copy, judge it, and take it over."""
        return static_pass.apply(model, ctx, Scheme("float16", exclude=self.exclude), self.max_drift)
