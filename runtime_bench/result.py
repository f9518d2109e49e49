"""What a measurement says, as plain data that goes into reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["FASTER", "SLOWER", "INCONCLUSIVE"]

FASTER_BELOW = 0.98
SLOWER_ABOVE = 1.02

Values = tuple[tuple[tuple[float, ...], ...], ...]
"""Seconds of every kept run, by launch and block."""


def verdict(lower95: float, upper95: float) -> Verdict:
    """FASTER when even the upper bound of new/old is below 0.98, SLOWER when even the lower bound is above 1.02."""
    if upper95 < FASTER_BELOW:
        return "FASTER"
    return "SLOWER" if lower95 > SLOWER_ABOVE else "INCONCLUSIVE"


@dataclass(frozen=True)
class Timing:
    """Latency of one model. Milliseconds; `p50_upper95_ms` is the one-sided 95 % upper bound of the P50."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p50_upper95_ms: float
    values: Values = field(repr=False)

    @property
    def raw(self) -> np.ndarray:
        """Every kept run in seconds, in order."""
        return np.array([v for launch in self.values for block in launch for v in block])

    def meets(self, target_ms: float) -> bool:
        """Whether the upper bound of the P50 is at or under `target_ms`."""
        return self.p50_upper95_ms <= target_ms

    def to_json(self) -> dict[str, Any]:
        """As in report.json. `blocks` are the numbers of values of each block, by launch, to cut `raw_s` again."""
        return {
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "p50_upper95_ms": self.p50_upper95_ms,
            "n": int(self.raw.size),
            "blocks": [[len(block) for block in launch] for launch in self.values],
            "raw_s": [round(float(v), 9) for v in self.raw],
        }


@dataclass(frozen=True)
class Speedup:
    """Latency of a model over that of the baseline, with one-sided 95 % bounds. 0.5 is half of the latency."""

    ratio: float
    lower95: float
    upper95: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """As in report.json. A bound that is not finite (too few blocks to tell) is null."""
        bounds = {"lower95": self.lower95, "upper95": self.upper95}
        finite = {name: (value if np.isfinite(value) else None) for name, value in bounds.items()}
        return {"ratio": self.ratio, **finite, "verdict": self.verdict}


@dataclass(frozen=True)
class Arm:
    """One model of a comparison. `speedup` is against the first arm; None for that one itself.

    info: providers, placement, runs left out because the process was preempted in them, warm-up runs by launch, whether
    every warm-up settled.
    """

    name: str
    timing: Timing
    speedup: Speedup | None
    info: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        speedup = self.speedup.to_json() if self.speedup else None
        return {"name": self.name, "timing": self.timing.to_json(), "speedup": speedup, "info": dict(self.info)}


@dataclass(frozen=True)
class Comparison:
    """Models measured interleaved on one target; the first is the baseline.

    control: the baseline against itself in a process of its own, None with one model. Its truth is 1.
    """

    target: Mapping[str, Any]
    arms: tuple[Arm, ...]
    control: Speedup | None
    launches: int
    blocks: int
    seed: int
    seconds: float
    synthetic: bool
    host: Mapping[str, Any]

    @property
    def baseline(self) -> Arm:
        """The first model."""
        return self.arms[0]

    def speedup(self, arm: int = -1) -> Speedup:
        """Speedup of an arm, the last one by default. ValueError for the baseline."""
        found = self.arms[arm].speedup
        if found is None:
            raise ValueError("the baseline has no speedup against itself: see control")
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, raw values included."""
        return {
            "target": dict(self.target),
            "arms": [arm.to_json() for arm in self.arms],
            "control": self.control.to_json() if self.control else None,
            "launches": self.launches,
            "blocks": self.blocks,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "synthetic_inputs": self.synthetic,
            "host": dict(self.host),
        }
