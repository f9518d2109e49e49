"""How well the latency of a plan was predicted before it was measured, from the rounds of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.report import LatencyModelFacts


def latency_model(rounds: Sequence[Mapping[str, Any]], scheme: str) -> LatencyModelFacts | None:
    """The errors of the predictions in the chosen scheme; None where the search predicted nothing.

    The models that the sum is calibrated on are no predictions, and looks in fresh processes no rounds. The first round
    shows the model as it is. The correction multiplies every later prediction by what the first one missed; the second
    round shows what that leaves. Each error is that of the target that was predicted worst.
    """
    looks = [r for r in rounds if r["scheme"] == scheme and r["predicted_ratio"] and "fresh_ratio" not in r]
    if not looks:
        return None
    missed = [p / m for p, m in zip(looks[0]["predicted_ratio"], looks[0]["measured_ratio"], strict=True)]
    corrected = None
    if len(looks) > 1:
        pairs = zip(looks[1]["predicted_ratio"], looks[1]["measured_ratio"], missed, strict=True)
        corrected = _worst([p / off / m - 1 for p, m, off in pairs])
    return LatencyModelFacts(len(looks), _worst([off - 1 for off in missed]), corrected)


def _worst(errors: Sequence[float]) -> float:
    return max(errors, key=abs)
