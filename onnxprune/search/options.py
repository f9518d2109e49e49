"""What a search is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.units import Target as LatencyTarget

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class SearchOptions:
    """Everything a user can decide about a search.

    goal: the latency target. precisions: what may be used. drop_branches: whether residual branches may go. criterion:
    of structured pruning. max_drift: largest relative output error accepted (None: warn above 0.1, refuse above 0.5).
    probe_samples: samples of an error probe. fitting_samples: samples that weights are fitted on, at most. rounds: of
    measure, correct, solve again. best_effort: give the best model though the target is not met.
    """

    goal: LatencyTarget
    precisions: tuple[str, ...] = PRECISIONS
    drop_branches: bool = True
    criterion: str = "obs"
    compensate: bool = True
    max_drift: float | None = None
    seed: int = 0
    probe_samples: int = 48
    fitting_samples: int = 1024
    rounds: int = 6
    best_effort: bool = False
    verify: bool = True
