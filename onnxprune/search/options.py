"""What a search is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.search.effort import NORMAL, Effort
from onnxprune.units import Amount
from onnxprune.units import Target as LatencyTarget

PRECISIONS = ("fp32", "fp16", "int8")
INGREDIENTS = (
    "compensation",
    "drift-correction",
    "refinement",
    "depth",
    "quantization",
    "latency-table",
    "correction",
)
"""What can be switched off, to see what it is worth."""


FASTER = LatencyTarget("", ratio=1.0)
"""The latency target where none is asked for: whatever is faster than the input model."""


@dataclass(frozen=True)
class SearchOptions:
    """Everything a user can decide about a search.

    goal: the latency target. size, macs: what the result may take of bytes and of multiply-accumulates. front: how many
    models to look for along the front of latency and loss; 0: one model. precisions: what may be used. drop_branches:
    whether residual branches may go. criterion: of structured pruning. max_drift: largest relative output error that is
    accepted (None: warn above 0.1, refuse above 0.5). effort: what the search may spend. without: ingredients that are
    switched off, by their names in INGREDIENTS. best_effort: give the best model though the target is not met.

    Raises UsageError for an ingredient that does not exist.
    """

    goal: LatencyTarget = FASTER
    size: Amount | None = None
    macs: Amount | None = None
    front: int = 0
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

    @property
    def asks_latency(self) -> bool:
        """Whether there is a latency target."""
        return self.goal is not FASTER

    @property
    def asks_least(self) -> bool:
        """Whether the lowest latency is asked for, at a loss that is limited: where there is no target of any kind."""
        return not self.asks_latency and self.size is None and self.macs is None and not self.front

    def uses(self, ingredient: str) -> bool:
        """Whether an ingredient is switched on."""
        assert ingredient in INGREDIENTS, ingredient
        return ingredient not in self.without
