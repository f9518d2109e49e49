"""How much work a search may be: one row a name, one field an ingredient."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError


@dataclass(frozen=True)
class Effort:
    """What the ingredients of a search may spend. Larger is slower and better, or no worse."""

    name: str
    probe_samples: int
    """samples that an error probe runs on"""
    fitting_samples: int
    """samples that weights are fitted on, at most"""
    look_ahead: int
    """branches that are measured again after each drop, to choose the next"""
    refinement: float
    """multiply-adds that refining all weights of the chosen model together may take"""
    epochs: int
    """times that refining sees a sample, at most"""
    rounds: int
    """of measure, correct, solve again, in one scheme"""
    rehearsals: int
    """plans that are compensated quickly, to rank them"""
    finalists: int
    """plans that are finished, to keep the best"""
    trials: int
    """models that are finished to find the lowest latency within a limit of loss"""


EFFORTS = {
    row.name: row
    for row in (
        Effort(
            "fast",
            probe_samples=24,
            fitting_samples=256,
            look_ahead=1,
            refinement=1e11,
            epochs=8,
            rounds=4,
            rehearsals=0,
            finalists=1,
            trials=3,
        ),
        Effort(
            "normal",
            probe_samples=48,
            fitting_samples=1024,
            look_ahead=3,
            refinement=1e12,
            epochs=8,
            rounds=6,
            rehearsals=6,
            finalists=2,
            trials=5,
        ),
        Effort(
            "best",
            probe_samples=64,
            fitting_samples=2048,
            look_ahead=5,
            refinement=1e13,
            epochs=24,
            rounds=10,
            rehearsals=16,
            finalists=4,
            trials=8,
        ),
    )
}
NORMAL = EFFORTS["normal"]


def effort(name: str) -> Effort:
    """The row of that name. Raises UsageError where there is none."""
    if name not in EFFORTS:
        raise UsageError(f"unknown effort {name!r}; choose among {', '.join(EFFORTS)}")
    return EFFORTS[name]
