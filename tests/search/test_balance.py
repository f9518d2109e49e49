"""Depth against width, weighed by rehearsals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from onnxprune import ir
from onnxprune.search import balance
from onnxprune.search.balance import balanced, scaled
from onnxprune.search.depth import DropOrder
from onnxprune.search.effort import EFFORTS
from onnxprune.search.plan import Plan
from onnxprune.search.sensitivity import Sensitivity
from onnxprune.search.solve import Problem, Solution, WidthChoice, evaluate
from onnxprune.search.workspace import Workspace
from passes.structured_pruning.obs import Curve

Real = Callable[[int], float]


@pytest.fixture
def work(workspace: Callable[..., Workspace], residual: Callable[..., ir.Model]) -> Workspace:
    return workspace(residual(blocks=3, width=8, inner=8))


def sensitivity(work: Workspace) -> Sensitivity:
    """One group of eight levels and three branches; a plan is `dropped` branches and as many levels less to give."""
    curve = Curve(np.arange(8), np.arange(9) / 8.0)
    choice = WidthChoice("g", tuple(range(1, 9)), tuple(0.0125 * (8 - width) ** 2 for width in range(1, 9)))
    drops = DropOrder(tuple(work.branches[:3]), (0.11, 0.22, 0.33))
    return Sensitivity({"g": curve}, {"g": choice.widths}, (choice,), drops, {}, {}, {})


def solved(errors: Sensitivity) -> tuple[Plan, Solution]:
    """The budget: every branch that stays takes two units of the group."""
    problem = Problem(errors.choices, errors.drops.steps, (), ())
    plans = [evaluate(problem, {"g": 1 + 2 * dropped}, dropped) for dropped in range(4)]
    best = min(plans, key=lambda each: each.error)
    return Plan({"g": 2 + 2 * best.dropped}, tuple(str(place) for place in range(best.dropped))), best


@pytest.fixture
def rehearse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Real], list[int]]:
    """Puts a function of the depth in the place of rehearsals; the list takes the depths that were looked at."""

    def install(real: Real) -> list[int]:
        seen: list[int] = []

        def look(plan: Plan, keep: object) -> float:
            seen.append(len(plan.dropped))
            return real(len(plan.dropped))

        monkeypatch.setattr(balance, "Rehearsal", lambda work: look)
        return seen

    return install


@pytest.mark.parametrize("best", range(4))
def test_the_depth_that_rehearses_best_is_what_the_weighed_errors_lead_to(
    best: int, work: Workspace, rehearse: Callable[[Real], list[int]]
) -> None:
    plain = sensitivity(work)
    assert len(solved(plain)[0].dropped) == 2
    rehearse(lambda depth: 0.05 + 0.01 * abs(depth - best))
    weighed = balanced(work, plain, solved)
    plan, solution = solved(weighed)
    assert solution.error == pytest.approx(0.05 + 0.01 * abs(len(plan.dropped) - best))
    assert len(plan.dropped) == best


def test_every_plan_is_rehearsed_once(work: Workspace, rehearse: Callable[[Real], list[int]]) -> None:
    seen = rehearse(lambda depth: 1.0 - 0.1 * depth)
    before = len(work.predictions)
    balanced(work, sensitivity(work), solved)
    assert seen == [2, 3, 0]
    pairs = work.predictions[before:]
    assert [pair.real for pair in pairs] == pytest.approx([0.8, 0.7, 1.0])
    assert [pair.predicted for pair in pairs] == pytest.approx([0.22 + 0.05, 0.33, 0.45])


def test_without_branches_or_effort_nothing_is_weighed(work: Workspace, rehearse: Callable[[Real], list[int]]) -> None:
    seen = rehearse(float)
    plain = sensitivity(work)
    flat = replace(plain, drops=DropOrder())
    assert balanced(work, flat, solved) is flat
    quick = replace(work, options=replace(work.options, effort=EFFORTS["fast"]))
    assert balanced(quick, plain, solved) is plain and not seen


def test_scaling_keeps_the_unit() -> None:
    choice = WidthChoice("g", (1, 2), (0.5, 0.0))
    plain = Sensitivity({}, {}, (choice,), DropOrder((), (0.1, 0.3)), {}, {}, {})
    found = scaled(plain, 2.0, 0.5)
    assert found.choices[0].error == (1.0, 0.0) and found.drops.error == (0.05, 0.15)
    assert found.choices[0].widths == choice.widths
