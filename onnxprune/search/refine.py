"""Measure, correct, solve again: from predicted latencies to a plan whose measured latency lands just under the target.

A round solves the integer programme for a budget of table seconds, builds the plan without compensation (latency does
not depend on the values of weights), measures it against the input model, and moves the budget by what the prediction
missed, inside the bracket of budgets known to fit and known not to. The last rounds give back: the largest plan that
still fits wins.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxprune import ir
from onnxprune.errors import OnnxpruneError
from onnxprune.search.calibration import Calibration, fit_calibration
from onnxprune.search.plan import Plan, chosen_branches, keep_masks, narrowed
from onnxprune.search.pricing import price, scheme_name
from onnxprune.search.resources import Count, Resource
from onnxprune.search.sensitivity import Sensitivity
from onnxprune.search.solve import LatencyTerm, Problem, Solution, cheapest, evaluate, solve
from onnxprune.search.workspace import Workspace
from passes.quantization import Scheme, fake_quantize_for_latency

LANDING = 0.985
"""Where in the target a round aims: above it the bound of the certified P50 may pass the target."""
CLOSE = (0.965, 0.994)
"""Share of the target at which no further round is needed."""

CONFIRMED = 0.997
"""Share of the target that the bound of a plan confirmed in fresh processes may take."""
CALIBRATED = ((1.0, 0.0), (0.75, 1 / 6), (0.45, 1 / 3))
"""Whole models that the sum of the table is calibrated on: how far up the levels of every group, and the share of
branches that is dropped."""
EXACT = 1 - 1e-4
"""The part of what is counted that a round aims at: the tolerance of the solver must not cross the limit."""
LARGEST_FACTOR = 3.0
"""How far off a prediction may be before the search gives up."""


@dataclass(frozen=True)
class Candidate:
    """A plan that was measured: its latency over the input model's on every target, the predicted error, the solution,
    and what it takes of every resource with a limit.
    """

    plan: Plan
    solution: Solution
    ratios: tuple[float, ...]
    error: float
    confirmed: bool = False
    taken: tuple[float, ...] = ()

    def share(self, limits: Sequence[float]) -> float:
        """The largest measured latency as a share of its limit: at most 1 fits."""
        return max(ratio / limit for ratio, limit in zip(self.ratios, limits, strict=True))


@dataclass
class SchemeSearch:
    """The search in one scheme. `goal`: target ratios to the input model, `baseline_s`: its seconds, one entry a
    target. `resources`: what else is limited; `room`: the part of each limit that candidates may take, since a finished
    model has more bytes than its candidate. `terms`: of every target, then of every resource.
    """

    work: Workspace
    sensitivity: Sensitivity
    scheme: Scheme | None
    goal: tuple[float, ...]
    baseline_s: tuple[float, ...]
    scheme_error: float = 0.0
    resources: tuple[Resource, ...] = ()
    room: tuple[float, ...] = ()
    terms: tuple[tuple[LatencyTerm, ...], ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    counts: tuple[Count, ...] = ()
    tried: list[Candidate] = field(default_factory=list)
    correction: float = 1.0
    """The latency that was aimed at over the one that was measured, in the last round."""

    @property
    def limits(self) -> tuple[float, ...]:
        """The target ratios as quick looks see them: what fresh processes are known to add is taken off."""
        return tuple(goal / bias for goal, bias in zip(self.goal, self.work.bias, strict=True))

    def __post_init__(self) -> None:
        self.room = self.room or (1.0,) * len(self.resources)

    def fits(self, candidate: Candidate, share: float = CLOSE[1]) -> bool:
        """Whether a candidate takes at most `share` of every latency target, and no more than there is of the rest. The
        latency of a confirmed one is an upper bound already, so it may take the whole target.
        """
        return (
            candidate.share(self.limits) <= (CONFIRMED if candidate.confirmed else share) and self.used(candidate) <= 1
        )

    def used(self, candidate: Candidate) -> float:
        """The largest part of a resource's limit that a candidate takes; 0 where none is limited."""
        return max((taken / limit for taken, limit in zip(candidate.taken, self._allowed, strict=True)), default=0.0)

    @property
    def _allowed(self) -> list[float]:
        return [resource.limit * room for resource, room in zip(self.resources, self.room, strict=True)]

    def prepare(self) -> None:
        """Prices every level from the table, and calibrates the sum on whole models."""
        tell = self._tell("pricing levels")
        tell("from the latency table")
        self.terms = tuple(
            price(self.work, table, self.sensitivity.levels, self.sensitivity.branch_of_node, self.scheme, tell)
            for table in self.work.tables
        )
        self.terms += tuple(each.terms(self.work, self.sensitivity, self.scheme) for each in self.resources)
        points = [self.measure(solution) for solution in self._whole_models()]
        self.calibrations = tuple(
            fit_calibration([p.solution.seconds[i] for p in points], [p.ratios[i] * baseline for p in points])
            for i, baseline in enumerate(self.baseline_s)
        )
        first = len(self.baseline_s)
        self.counts = tuple(
            Count.of([p.solution.seconds[first + i] for p in points], [p.taken[i] for p in points])
            for i in range(len(self.resources))
        )

    def _whole_models(self) -> list[Solution]:
        """What the sum is calibrated on: full width, and down to half of everything, without repetition."""
        problem = self.problem(tuple(0.0 for _ in self.terms))
        found: list[Solution] = []
        for width, depth in CALIBRATED:
            level = {c.group: math.floor((len(c.widths) - 1) * width + 0.5) for c in problem.choices}
            solution = evaluate(problem, level, math.floor(len(problem.branch_error) * depth))
            if all(solution.level != other.level or solution.dropped != other.dropped for other in found):
                found.append(solution)
        return found

    def problem(self, budget: tuple[float, ...]) -> Problem:
        """The integer programme for budgets in table seconds."""
        return Problem(self.sensitivity.choices, self.sensitivity.drops.steps, self.terms, budget)

    def solve(self, factor: float = 1.0) -> Solution | None:
        """The best plan predicted to take `factor` times the latency target, and what there is of the rest."""
        limits = [limit * seconds * factor for limit, seconds in zip(self.limits, self.baseline_s, strict=True)]
        budget = (
            *(c.budget(limit) for c, limit in zip(self.calibrations, limits, strict=True)),
            *(count.budget(allowed * EXACT) for count, allowed in zip(self.counts, self._allowed, strict=True)),
        )
        return solve(self.problem(budget), cut_off=self.work.cut_off) if min(budget) > 0 else None

    def solved(self, sensitivity: Sensitivity) -> tuple[Plan, Solution] | None:
        """The plan that other errors lead to at the target, None where there is none."""
        other = replace(self, sensitivity=sensitivity)
        solution = other.solve()
        return None if solution is None else (other.plan(solution), solution)

    def weigh(self, sensitivity: Sensitivity) -> None:
        """Takes other errors, also for what was measured already."""
        self.sensitivity = sensitivity
        problem = self.problem(tuple(0.0 for _ in self.terms))
        for place, each in enumerate(self.tried):
            solution = evaluate(problem, each.solution.level, each.solution.dropped)
            self.tried[place] = replace(each, solution=solution, error=solution.error + self.scheme_error)

    def plan(self, solution: Solution) -> Plan:
        """The plan of a solution: groups at full width and those inside dropped branches are left out."""
        gone = self.sensitivity.drops.branches[: solution.dropped]
        inside = {g for g, branch in self.sensitivity.branch_of_group.items() if branch < solution.dropped}
        widths: dict[str, int] = {}
        for choice in self.sensitivity.choices:
            width = choice.widths[solution.level[choice.group]]
            if width < choice.widths[-1] and choice.group not in inside:
                widths[choice.group] = width
        return Plan(widths, tuple(branch.name for branch in gone), self.scheme)

    def measure(self, solution: Solution) -> Candidate:
        """Builds the plan of a solution quickly and measures it."""
        plan = self.plan(solution)
        model, path = self._built(plan)
        taken = tuple(each.taken(self.work, model, path) for each in self.resources)
        error = solution.error + self.scheme_error
        candidate = Candidate(plan, solution, self.work.ratios(path), error, taken=taken)
        self._recount(candidate)
        self.tried.append(candidate)
        self.work.rounds.append(self._entry(candidate))
        return candidate

    def _recount(self, candidate: Candidate) -> None:
        """Moves the line of every resource so that it is right for this candidate."""
        if self.counts:
            predicted = candidate.solution.seconds[len(self.baseline_s) :]
            self.counts = tuple(
                count.through(terms, taken)
                for count, terms, taken in zip(self.counts, predicted, candidate.taken, strict=True)
            )

    def _built(self, plan: Plan) -> tuple[ir.Model, Path]:
        """The model of a plan with sliced weights and cheap ranges: right in structure, and so in latency."""
        keep = keep_masks(plan, self.sensitivity.curves)
        model, _ = narrowed(self.work.base, self.work.graph, keep, chosen_branches(self.work.branches, plan))
        if self.scheme is not None:
            model = fake_quantize_for_latency(model, self.scheme, self.work.probe_feeds().spread(2))
        return model, self.work.file(model, "candidate")

    def confirm(self, candidate: Candidate) -> Candidate:
        """The candidate with its latency measured in fresh processes, as certification will do it.

        What that differs from the quick look corrects every later quick look of this search.
        """
        self._tell("confirming")("in fresh processes")
        found = self.work.fresh_ratios(self._built(candidate.plan)[1])
        self.work.bias = tuple(ratio / quick for (ratio, _), quick in zip(found, candidate.ratios, strict=True))
        bounds = tuple(bound / bias for (_, bound), bias in zip(found, self.work.bias, strict=True))
        confirmed = replace(candidate, ratios=bounds, confirmed=True)
        self.tried[self.tried.index(candidate)] = confirmed
        self.work.rounds.append({**self._entry(candidate), "fresh_ratio": [ratio for ratio, _ in found]})
        return confirmed

    def _entry(self, candidate: Candidate) -> Mapping[str, object]:
        predicted = [
            calibration.seconds(seconds) / baseline
            for calibration, seconds, baseline in zip(
                self.calibrations, candidate.solution.seconds, self.baseline_s, strict=False
            )
        ]
        return {
            "scheme": scheme_name(self.scheme),
            "dropped": candidate.solution.dropped,
            "narrowed": len(candidate.plan.widths),
            "predicted_ratio": predicted,
            "measured_ratio": list(candidate.ratios),
            "predicted_error": candidate.error,
            **{each.kind: taken for each, taken in zip(self.resources, candidate.taken, strict=True)},
        }

    def refine(self) -> Candidate | None:
        """The candidate with the least predicted error that is measured to fit, or None. Without correction: the one
        that is predicted to fit.

        `factor` scales the target for the prediction; what a round measures moves it, between the largest factor known
        to fit and the smallest known not to. It starts from what the rounds before have learned.
        """
        self._tell("refining")(f"for {max(self.goal):.3f}x")
        if not self.work.options.uses("correction"):
            predicted = self.solve(LANDING)
            return None if predicted is None else self._measured(predicted)
        factor, fits, misses = LANDING * self.correction, 0.0, LARGEST_FACTOR
        for _ in range(self.work.options.effort.rounds):
            solution = self.solve(factor)
            if solution is None:  # predicted to be impossible; the prediction may be too high
                fits, factor = factor, min(1.15 * factor, (factor + misses) / 2)
            else:
                candidate = self._measured(solution)
                share, used = candidate.share(self.limits), self.used(candidate)
                self.correction = factor / share
                if used > 1:  # counted now, so the next one fits
                    continue
                if share <= CLOSE[1] and max(share, used) >= CLOSE[0]:
                    break
                fits, misses = (fits, min(misses, factor)) if share > CLOSE[1] else (max(fits, factor), misses)
                factor = _between(fits, LANDING * self.correction, misses)
            if misses < fits * 1.004 or factor >= LARGEST_FACTOR:
                break
        return self.best()

    def _measured(self, solution: Solution) -> Candidate:
        plan = self.plan(solution)
        return next((c for c in self.tried if c.plan == plan), None) or self.measure(solution)

    def best(self, share: float = CLOSE[1]) -> Candidate | None:
        """The measured candidate with the least predicted error that fits, with at most `share` of every target."""
        return min((c for c in self.tried if self.fits(c, share)), key=lambda c: c.error, default=None)

    def floor(self) -> None:
        """Measures the narrowest plan of all, where it can be built."""
        with contextlib.suppress(OnnxpruneError):
            self._measured(cheapest(self.problem(tuple(0.0 for _ in self.terms))))

    def _tell(self, stage: str) -> Callable[[str], None]:
        return lambda text: self.work.progress.stage(stage, f"{scheme_name(self.scheme)}: {text}")


def _between(low: float, aim: float, high: float) -> float:
    """`aim` where it lies inside the bracket, else the bracket's geometric middle."""
    return aim if low < aim < high else math.sqrt(max(low, high / 4) * high)
