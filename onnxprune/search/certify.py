"""Certification: the finished model against the input model in fresh processes, with its number of blocks fixed
beforehand.

What the search decides on a certificate is kept in the journal, as its other looks are. Where the journal has it,
nothing is measured before somebody asks for the figures of this machine: for the last certificate only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

from onnxprune.search.workspace import Workspace
from onnxprune.units import Target as LatencyTarget
from runtime_bench import Comparison, compare
from runtime_bench.comparison import LAUNCHES
from runtime_bench.result import FASTER_BELOW
from runtime_bench.table_file import Look

ARMS = ("input", "lossless", "compressed")


class Certificate:
    """One comparison a target: arms input model, lossless canonical model, compressed model.

    `decisive`: the figures that the search acts on, a look a target: those of the journal, or those measured.
    """

    def __init__(self, decisive: Sequence[Look], measure: Callable[[], tuple[Comparison, ...]]) -> None:
        self.decisive = tuple(decisive)
        self._measure = measure

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What this machine measures."""
        return self._measure()

    def accepts(self, goal: LatencyTarget) -> bool:
        """Whether the search takes the target as met."""
        return _met(self.decisive, goal)

    def share(self, goal: LatencyTarget, *, bound: bool = False) -> float:
        """The largest P50 (or its bound) that the search acts on, as a share of the target."""
        return max(_share(look, goal, bound=bound) for look in self.decisive)

    def met(self, goal: LatencyTarget) -> bool:
        """Whether on this machine the one-sided 95 % bound is at or under the target, and faster is proved, on every
        target.
        """
        return _met(self._here, goal)

    def bound_here(self, goal: LatencyTarget) -> float:
        """The largest bound of the P50 on this machine, as a share of the target."""
        return max(_share(look, goal, bound=True) for look in self._here)

    @property
    def _here(self) -> list[Look]:
        return [figures(comparison) for comparison in self.comparisons]


def _met(looks: Sequence[Look], goal: LatencyTarget) -> bool:
    return all(_share(look, goal, bound=True) <= 1.0 and look["upper95"] < FASTER_BELOW for look in looks)


def _share(look: Look, goal: LatencyTarget, *, bound: bool) -> float:
    if goal.ratio is not None:
        return look["upper95" if bound else "ratio"] / goal.ratio
    return look["p50_upper95_s" if bound else "p50_s"] / goal.value


def figures(comparison: Comparison) -> Look:
    """What decides a certificate: the compressed model's latency, and its ratio to the input model's, with bounds."""
    speedup, timing = comparison.speedup(), comparison.arms[-1].timing
    return {
        "ratio": speedup.ratio,
        "upper95": speedup.upper95,
        "p50_s": timing.p50_ms * 1e-3,
        "p50_upper95_s": timing.p50_upper95_ms * 1e-3,
    }


def certify(work: Workspace, compressed: Path, *, again: bool = False) -> Certificate:
    """Measures input, lossless and compressed model interleaved, in fresh processes, on samples that the search did not
    use; later, where the journal knows this certificate on every target.

    again: a second certificate of a model, from twice as many processes; the figures of the first are not in it.
    """
    models, kind = [work.original, work.base_file, compressed], "certificate again" if again else "certificate"
    known = [journal.recall(kind, models) for journal in work.journals]
    if work.journals and all(known):
        for journal in work.journals:
            journal.taken += 1
        return Certificate([look for look in known if look], lambda: _measured(work, models, again))
    comparisons = _measured(work, models, again)
    looks = [
        journal.look(kind, models, partial(figures, comparison))
        for journal, comparison in zip(work.journals, comparisons, strict=True)
    ]
    return Certificate(looks, lambda: comparisons)


def _measured(work: Workspace, models: Sequence[Path], again: bool) -> tuple[Comparison, ...]:
    launches, seed = (2 * LAUNCHES, work.options.seed + 2) if again else (LAUNCHES, work.options.seed + 1)
    feeds = work.held.measured()
    found = []
    for target in work.targets:
        work.progress.stage("certifying", f"on {target.alias}, {target.threads} thread(s), in fresh processes")
        found.append(compare(models, target, feeds, launches=launches, seed=seed, names=ARMS))
    return tuple(found)
