"""What to quantize and how: the options that the search chooses among."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from onnxprune.errors import UsageError
from passes.quantization.host import saturates

Kind = Literal["static", "dynamic", "weight-only", "float16"]
Activation = Literal["u8", "s8"]
Calibration = Literal["auto", "readers", "minmax", "percentile", "mse"]


@dataclass(frozen=True)
class Scheme:
    """One way to quantize a model: to 8 bits, with s8 weights, unless `kind` is `weight-only` or `float16`.

    kind: `static` (QDQ, ranges from calibration), `dynamic` (MatMul and Gemm only, ranges at run time), `weight-only`
    (MatMul and Gemm only, 4-bit weights in blocks of 32, of which only `exclude` and `refine` are asked) or `float16`
    (everything in half precision, of which only `exclude` is asked).
    activation: `u8` (asymmetric) or `s8` (symmetric); dynamic is always u8.
    calibration: how static ranges are chosen: `minmax`, `percentile` (99.99 % of the values), `mse` (least squared
    rounding and clipping error), `readers` (least error in what reads the tensor) or `auto` (of minmax, mse and readers
    the one whose model drifts least).
    exclude: keys of nodes that stay in float32.
    per_channel: a weight scale for every output channel instead of one for the tensor.
    reduce_range: 7-bit weights, for x86 CPUs without VNNI, whose 16-bit sums of products saturate; None: as the CPU of
    this machine needs it.
    refine: round weights for small output error (not dynamic) and restore mean outputs (static only).
    """

    kind: Kind = "static"
    activation: Activation = "u8"
    calibration: Calibration = "auto"
    exclude: tuple[str, ...] = ()
    per_channel: bool = True
    reduce_range: bool | None = None
    refine: bool = True

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, get_args(Kind)),
            ("activation", self.activation, get_args(Activation)),
            ("calibration", self.calibration, get_args(Calibration)),
        ):
            if value not in allowed:
                raise UsageError(f"quantization {name} {value!r} is unknown; choose one of {', '.join(allowed)}")

    @property
    def seven_bits(self) -> bool:
        """Whether 8-bit weights keep to 7 bits; False where there are none."""
        if self.kind not in ("static", "dynamic"):
            return False
        return saturates() if self.reduce_range is None else self.reduce_range
