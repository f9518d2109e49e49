"""How long a compression will take, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.advice.facts import Facts


@dataclass(frozen=True)
class Estimate:
    """Seconds of a stage, from `low` to `high`."""

    stage: str
    low: float
    high: float


def estimates(facts: Facts) -> Sequence[Estimate]:
    return [Estimate("measuring", 10, 20)]
