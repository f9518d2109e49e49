"""All schemes of one search over the same evidence: sensitivities, prices and calibrations serve every goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxprune.errors import OnnxpruneError
from onnxprune.search.balance import balanced
from onnxprune.search.finalists import Contender, Judge, best_finished
from onnxprune.search.finish import Finished, finish
from onnxprune.search.plan import Plan, keep_masks
from onnxprune.search.pricing import branch_seconds, scheme_name
from onnxprune.search.refine import CLOSE, CONFIRMED, Candidate, SchemeSearch
from onnxprune.search.resources import resources
from onnxprune.search.schemes import scheme_options
from onnxprune.search.sensitivity import Sensitivity, measure_sensitivity
from onnxprune.search.workspace import Workspace

CONFIRMATIONS = 4  # looks in fresh processes, before weights are fitted
RIVAL = 1.5  # predicted error, over the best one's, up to which another scheme's plan is finished too


@dataclass
class Contest:
    """Schemes that can be built and run, with their prices known; `baseline_s`: the input model's seconds a target."""

    work: Workspace
    sensitivity: Sensitivity
    searches: list[SchemeSearch]
    baseline_s: tuple[float, ...]
    weighed: bool = False

    def aim(self, goal: tuple[float, ...]) -> None:
        """Sets the latency target of every scheme, as ratios to the input model."""
        for item in self.searches:
            item.goal = goal

    def correct(self, plan: Plan, share: float) -> None:
        """Takes what a certificate bounded the latency of a plan's model by, as a share of the target, for what looks
        had said of it: a plan that missed is not finished again.
        """
        for item in self.searches:
            ratios = tuple(limit * share for limit in item.limits)
            item.tried = [replace(each, ratios=ratios) if each.plan == plan else each for each in item.tried]

    def tighten(self, room: Sequence[float]) -> None:
        """Leaves only this part of the room that every resource had."""
        for item in self.searches:
            item.room = tuple(old * new for old, new in zip(item.room, room, strict=True))

    def weigh(self) -> None:
        """Weighs depth against width by what rehearsals give, once: at the first target, in the scheme that leads."""
        if self.weighed or not self.searches:
            return
        self.weighed = True
        _, leader = self.predicted()[0]
        self.sensitivity = balanced(self.work, self.sensitivity, leader.solved)
        for item in self.searches:
            item.weigh(self.sensitivity)

    def predicted(self) -> list[tuple[float, SchemeSearch]]:
        """Every scheme with the squared drift that it is predicted to end with, ascending; infinite where it is
        predicted not to get there.
        """
        found = []
        for item in self.searches:
            solution = item.solve()
            found.append((float("inf") if solution is None else solution.error + item.scheme_error, item))
        return sorted(found, key=lambda pair: pair[0])

    def best(self) -> Candidate | None:
        """The best candidate over all schemes whose latency holds in fresh processes too, and uses the target up."""
        self.weigh()
        predicted = self.predicted()
        for error, item in predicted:
            self.work.progress.decide(f"{scheme_name(item.scheme)}: predicted squared drift {error:.4g} at the target")
        if not self.work.options.uses("correction"):
            return _refined(predicted)[1]
        best: Candidate | None = None
        for _ in range(CONFIRMATIONS):
            home, best = _refined(predicted)
            if home is None or best is None or best.confirmed:
                break
            best = home.confirm(best)
            share = best.share(home.limits)
            if share <= CONFIRMED and max(share, home.used(best)) >= CLOSE[0]:
                break
        sure = [each for item in self.searches for each in item.tried if each.confirmed and item.fits(each)]
        return min(sure, key=lambda each: each.error, default=best)

    def finish(self, candidate: Candidate) -> Finished:
        """Builds a candidate for good, as one of several: each is refined with its share of the effort."""
        keep = keep_masks(candidate.plan, self.sensitivity.curves)
        return finish(self.work, candidate.plan, keep, share=1 / self.work.options.effort.finalists)

    def finish_best(self, candidate: Candidate, judge: Judge) -> Finished:
        """Builds a candidate and its rivals, and keeps the one that `judge` likes best."""
        curves = self.sensitivity.curves
        contenders = [
            Contender(c.plan, keep_masks(c.plan, curves), c.error) for c in (candidate, *self._rivals(candidate))
        ]
        return best_finished(self.work, contenders, judge)

    def _rivals(self, candidate: Candidate) -> list[Candidate]:
        """The best fitting candidates of the other schemes that are predicted to lose little more, as many as are to be
        finished; their latency holds in fresh processes too.
        """
        others = [item for item in self.searches if item.scheme != candidate.plan.scheme]
        found = [(each, item) for item in others if (each := item.best()) is not None]
        found = [(each, item) for each, item in found if each.error < RIVAL * candidate.error]
        found = sorted(found, key=lambda pair: pair[0].error)[: self.work.options.effort.finalists - 1]
        if self.work.options.uses("correction"):
            found = [(each if each.confirmed else item.confirm(each), item) for each, item in found]
        return [each for each, item in found if item.fits(each)]

    @property
    def tried(self) -> list[Candidate]:
        """Everything that was measured."""
        return [candidate for item in self.searches for candidate in item.tried]


def gather(work: Workspace, goal: tuple[float, ...], baseline_s: tuple[float, ...]) -> Contest:
    """Measures what every goal needs: precisions, sensitivities, prices, calibrations."""
    options = scheme_options(work)
    fastest = min(options, key=lambda option: option.ratio)
    sensitivity = measure_sensitivity(work, branch_seconds(work, fastest.scheme))
    limited = resources(work)
    searches = [
        SchemeSearch(work, sensitivity, option.scheme, goal, baseline_s, option.error, limited) for option in options
    ]
    return Contest(work, sensitivity, [item for item in searches if _prepared(work, item)], baseline_s)


def _prepared(work: Workspace, item: SchemeSearch) -> bool:
    """Prepares a scheme. False where its candidates cannot be built or run."""
    try:
        item.prepare()
    except OnnxpruneError as error:
        if item.scheme is None:
            raise
        work.progress.decide(f"{scheme_name(item.scheme)} is left out: {error}")
        return False
    return True


def _refined(predicted: Sequence[tuple[float, SchemeSearch]]) -> tuple[SchemeSearch | None, Candidate | None]:
    """Refines schemes in the order of their predicted error, as long as the next prediction can beat the best."""
    home, best = None, None
    for error, item in predicted:
        if best is not None and error >= best.error:
            break
        found = item.refine()
        if found is not None and (best is None or found.error < best.error):
            home, best = item, found
    return home, best
