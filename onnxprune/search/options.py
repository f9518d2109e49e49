"""What a search is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.search.effort import NORMAL, Effort
from onnxprune.units import Target as LatencyTarget

PRECISIONS = ("fp32", "int8")
INGREDIENTS = (
    "compensation",
    "drift-correction",
    "refinement",
    "depth",
    "low-rank",
    "quantization",
    "latency-table",
    "correction",
)
"""What can be switched off, to see what it is worth."""


@dataclass(frozen=True)
class SearchOptions:
    """Everything a user can decide about a search.

    goal: the latency target. precisions: what may be used. drop_branches: whether residual branches may go. criterion:
    of structured pruning. max_drift: largest relative output error accepted (None: warn above 0.1, refuse above 0.5).
    effort: what the search may spend. without: ingredients that are switched off, by their names in INGREDIENTS.
    best_effort: give the best model though the target is not met.

    Raises UsageError for an ingredient that does not exist.
    """

    goal: LatencyTarget
    precisions: tuple[str, ...] = PRECISIONS
    drop_branches: bool = True
    criterion: str = "obs"
    max_drift: float | None = None
    seed: int = 0
    effort: Effort = NORMAL
    without: frozenset[str] = frozenset()
    best_effort: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        unknown = sorted(self.without - set(INGREDIENTS))
        if unknown:
            raise UsageError(f"unknown ingredient {unknown[0]!r}; choose among {', '.join(INGREDIENTS)}")

    def uses(self, ingredient: str) -> bool:
        """Whether an ingredient is switched on."""
        assert ingredient in INGREDIENTS, ingredient
        return ingredient not in self.without
