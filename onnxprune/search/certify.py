"""Certification: the finished model against the input model in fresh processes, with its number of blocks fixed
beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxprune.search.workspace import Workspace
from onnxprune.units import Target as LatencyTarget
from runtime_bench import Comparison, compare

ARMS = ("input", "lossless", "compressed")


@dataclass(frozen=True)
class Certificate:
    """One comparison a target: arms input model, lossless canonical model, compressed model."""

    comparisons: tuple[Comparison, ...]

    def met(self, goal: LatencyTarget) -> bool:
        """Whether the one-sided 95 % bound is at or under the target, and faster is proved, on every target."""
        return all(self._share(c, goal, bound=True) <= 1.0 and self._faster(c) for c in self.comparisons)

    def share(self, goal: LatencyTarget, *, bound: bool = False) -> float:
        """The largest certified P50 (or its bound) as a share of the target."""
        return max(self._share(c, goal, bound=bound) for c in self.comparisons)

    @staticmethod
    def _faster(comparison: Comparison) -> bool:
        return comparison.speedup().verdict == "FASTER"

    @staticmethod
    def _share(comparison: Comparison, goal: LatencyTarget, *, bound: bool) -> float:
        if goal.ratio is not None:
            speedup = comparison.speedup()
            return (speedup.upper95 if bound else speedup.ratio) / goal.ratio
        timing = comparison.arms[-1].timing
        return (timing.p50_upper95_ms if bound else timing.p50_ms) * 1e-3 / goal.value


def certify(work: Workspace, compressed: Path) -> Certificate:
    """Measures input, lossless and compressed model interleaved, in fresh processes, on samples that the search did not
    use.
    """
    feeds = work.held.take(range(min(len(work.held), 8))).arrays
    found = []
    for target in work.targets:
        work.progress.stage("certifying", f"on {target.alias}, {target.threads} thread(s), in fresh processes")
        models = [work.original, work.base_file, compressed]
        found.append(compare(models, target, feeds, seed=work.options.seed + 1, names=ARMS))
    return Certificate(tuple(found))
