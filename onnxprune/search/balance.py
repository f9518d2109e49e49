"""Depth against width: how much each prediction is worth, found by rehearsing what they lead to.

Errors of widths are measured on levels that nobody has fitted, errors of dropped branches on a network that is
re-fitted around the drop. Full compensation makes up for more of either, and how much more differs from model to model.
One weight between the two decides which plan is chosen, so it is searched for on rehearsed plans, in the manner of SPDY
(Frantar & Alistarh 2022, arXiv 2201.13096: coefficients of layers are searched for on the models that they lead to),
but with one coefficient, since each look costs a quick compensation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxprune.search.depth import DropOrder
from onnxprune.search.finalists import climb
from onnxprune.search.plan import Plan, keep_masks
from onnxprune.search.prediction import Pair
from onnxprune.search.rehearsal import Rehearsal
from onnxprune.search.sensitivity import Sensitivity
from onnxprune.search.solve import Problem, Solution, evaluate
from onnxprune.search.workspace import Workspace

WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
"""Of the error of depth over that of width."""
EVEN = WEIGHTS.index(1.0)
NEVER = 1e6  # error of a plan that does not exist

Solved = Callable[[Sensitivity], tuple[Plan, Solution] | None]
"""The plan that these errors lead to, None where there is none."""


def scaled(sensitivity: Sensitivity, width: float, depth: float) -> Sensitivity:
    """The errors of widths and of dropped branches times these factors."""
    choices = tuple(
        replace(choice, error=tuple(width * error for error in choice.error)) for choice in sensitivity.choices
    )
    drops = DropOrder(sensitivity.drops.branches, tuple(depth * error for error in sensitivity.drops.error))
    return replace(sensitivity, choices=choices, drops=drops)


def balanced(work: Workspace, sensitivity: Sensitivity, solved: Solved) -> Sensitivity:
    """The errors weighed so that the plan they lead to lost least when it was rehearsed, and in the unit of what it
    lost.
    """
    if work.options.effort.rehearsals < 2 or not sensitivity.drops.branches:
        return sensitivity
    looks = _Looks(work, sensitivity, solved)
    found = climb(len(WEIGHTS), EVEN, looks, work.options.effort.rehearsals, step=EVEN)
    best = min(found, key=lambda rung: (found[rung], abs(rung - EVEN)))
    if not looks.predicted.get(best, 0.0) > 0:
        return sensitivity
    scale = found[best] / looks.predicted[best]
    work.progress.decide(f"rehearsed squared drift {found[best]:.4g}; an error of depth counts {WEIGHTS[best]:g} times")
    return scaled(sensitivity, scale, scale * WEIGHTS[best])


class _Looks:
    """Rehearses the plan that a weight leads to; weights that lead to the same plan share a rehearsal."""

    def __init__(self, work: Workspace, sensitivity: Sensitivity, solved: Solved) -> None:
        self._work, self._sensitivity, self._solved = work, sensitivity, solved
        self._rehearsal = Rehearsal(work)
        self._known: dict[tuple[object, ...], float] = {}
        self.predicted: dict[int, float] = {}
        """the weighed error of each plan"""

    def __call__(self, rung: int) -> float:
        found = self._solved(scaled(self._sensitivity, 1.0, WEIGHTS[rung]))
        if found is None:
            return NEVER
        plan, solution = found
        self.predicted[rung] = solution.error
        key = (*sorted(plan.widths.items()), *plan.dropped)
        if key not in self._known:
            self._work.progress.stage("rehearsing", f"{len(plan.dropped)} branches dropped")
            self._known[key] = self._rehearsal(plan, keep_masks(plan, self._sensitivity.curves))
            problem = Problem(self._sensitivity.choices, self._sensitivity.drops.steps, (), ())
            plainly = evaluate(problem, solution.level, solution.dropped).error
            self._work.predictions.append(Pair(plainly, self._known[key], "rehearsed"))
        return self._known[key]
