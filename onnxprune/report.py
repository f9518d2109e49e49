"""The report: what was asked, what was done, and what was measured, as data (`schema_version` 1, JSON).

`removed` names tensors of the canonical model that `--dump-canonical` writes; with the indices it is enough to rebuild
the masked oracle elsewhere, or to prune the same channels in the framework that trained the model.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelFacts:
    """Size of a model. `macs` at the target's input shape; `bytes` counts external data too."""

    path: str | None
    sha256: str
    nodes: int
    params: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class TargetFacts:
    """What was asked for. kind: "ratio" (of the baseline's P50) or "seconds"; "size" (a ratio) or "bytes"; "macs" (a
    ratio) or "macs-count"; "drift" or "drop" (the lowest latency at that loss); "front" (so many models);
    "prune-ratio", "spec" or "none".
    """

    kind: str
    value: float
    ep: tuple[str, ...]


@dataclass(frozen=True)
class LatencyFacts:
    """Latency on one EP in milliseconds; `p50_upper95` is the one-sided 95 % bound of the P50, `raw_s` every kept run
    in seconds.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p50_upper95_ms: float
    n: int
    raw_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class SpeedupFacts:
    """New over old latency with one-sided 95 % bounds, and the verdict FASTER, SLOWER or INCONCLUSIVE."""

    ratio: float
    lower95: float
    upper95: float
    verdict: str


@dataclass(frozen=True)
class RemovedSlices:
    """Indices that left one axis of one tensor of the canonical model."""

    tensor: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class GroupFacts:
    """One group of coupled units before and after."""

    name: str
    kind: str
    width_before: int
    width_after: int
    removed: tuple[RemovedSlices, ...] = ()


@dataclass(frozen=True)
class PassFacts:
    """One pass that ran."""

    name: str
    modified: bool
    seconds: float
    kept: bool
    skips: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriftFacts:
    """Relative output error on held-out calibration samples: the worst output's, and each output's."""

    metric: str
    value: float
    outputs: Mapping[str, float] = field(default_factory=dict)
    synthetic_data: bool = False


@dataclass(frozen=True)
class EvalFacts:
    """The user's own metric before and after (higher is better); `after` is None where no model was finished."""

    metric: str
    before: float
    after: float | None = None


@dataclass(frozen=True)
class FrontFacts:
    """One model of a front, and what it was built by; latency and speedup per EP. `metric`: the user's own."""

    output: ModelFacts
    latency: Mapping[str, LatencyFacts]
    speedup: Mapping[str, SpeedupFacts]
    drift: float
    metric: float | None
    scheme: str
    widths: Mapping[str, int]
    dropped_branches: tuple[str, ...]


@dataclass(frozen=True)
class LatencyTableFacts:
    """The latency table that the user named: looks at whole models that were taken from it, looks and operators that
    were measured because it did not have them, and the other hosts and runtimes that measured a part of it.
    """

    file: str
    taken: int
    measured: int
    measured_elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class LatencyModelFacts:
    """How well latency was predicted in the chosen scheme: `rounds` that were predicted and measured, predicted over
    measured less one in the first (`first_error`), and in the second after the first one corrected it
    (`corrected_error`, None with one round). Of several targets the one that was predicted worst.
    """

    rounds: int
    first_error: float
    corrected_error: float | None = None


@dataclass(frozen=True)
class PredictionFacts:
    """How predicted errors ordered the plans that were built, against what was measured on them (Spearman). `pairs`: of
    squared relative output errors, predicted and real, and how the real one was found.
    """

    n: int
    rank_correlation: float | None
    pairs: tuple[tuple[float, float, str], ...] = ()


@dataclass
class Report:
    """Everything that a compression run states. Fields not reached stay at their defaults."""

    model: ModelFacts
    target: TargetFacts
    seed: int
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    met: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    """largest "size" in bytes, "macs", "drift" and "drop" that were accepted, where they were limited"""
    output: ModelFacts | None = None
    baseline: dict[str, LatencyFacts] = field(default_factory=dict)
    lossless: dict[str, LatencyFacts] = field(default_factory=dict)
    result: dict[str, LatencyFacts] = field(default_factory=dict)
    speedup: dict[str, SpeedupFacts] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    """per EP: the lowest latency measured, as a ratio of the baseline"""
    macs_ratio: float | None = None
    params_ratio: float | None = None
    front: list[FrontFacts] = field(default_factory=list)
    """the slowest first"""
    drift: DriftFacts | None = None
    eval: EvalFacts | None = None
    scheme: str = "float"
    opset: tuple[int, int] | None = None
    """default-domain opset before and after"""
    dropped_branches: tuple[str, ...] = ()
    """tensors of the canonical model that dropped residual branches added: zero in the masked oracle"""
    float_nodes: tuple[str, ...] = ()
    groups: tuple[GroupFacts, ...] = ()
    passes: list[PassFacts] = field(default_factory=list)
    search: list[Mapping[str, Any]] = field(default_factory=list)
    """one entry a round: plan, predicted and measured ratio"""
    latency_model: LatencyModelFacts | None = None
    latency_table: LatencyTableFacts | None = None
    prediction: PredictionFacts | None = None
    oracle: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    """seconds per stage"""
    peak_memory_bytes: int = 0
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return _plain(self)  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """Strict JSON (no NaN), one field a line at the top."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # numpy scalars
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # strict JSON has no infinity: a bound that too few blocks can give, a drift that is not a number
    return value
