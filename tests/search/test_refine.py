"""The loop that measures, corrects and solves again, on a machine whose table is off by a different factor an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from onnxprune import ir
from onnxprune.search.refine import CALIBRATED, CLOSE, SchemeSearch
from onnxprune.search.sensitivity import Sensitivity, measure_sensitivity
from onnxprune.search.workspace import Workspace

Residual = Callable[..., ir.Model]
Make = Callable[..., Workspace]


def wrong(key: str, low: float = 0.4, high: float = 2.5) -> float:
    """A factor for each key, the same at every call."""
    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32
    return low + (high - low) * share


def search_of(work: Workspace, goal: float, sensitivity: Sensitivity | None = None) -> SchemeSearch:
    seconds = work.benches[0].quick_ratio(work.original, [work.original])[0].baseline_p50_s
    count = len(work.benches)
    search = SchemeSearch(work, sensitivity or measure_sensitivity(work), None, (goal,) * count, (seconds,) * count)
    search.prepare()
    return search


@pytest.fixture
def model(residual: Residual) -> ir.Model:
    return residual(blocks=3, width=32, inner=48)


@pytest.mark.parametrize("goal", [0.8, 0.5, 0.3])
def test_a_wrong_table_still_lands_under_the_target(goal: float, model: ir.Model, workspace: Make) -> None:
    search = search_of(workspace(model, wrong=wrong), goal)
    found = search.refine()
    assert found is not None
    assert 0.8 < found.share((goal,)) <= CLOSE[1]
    measured = search.work.rounds
    assert 2 <= len(measured) <= 2 + search.work.options.effort.rounds
    assert all(entry["scheme"] == "float" for entry in measured)


def test_what_fresh_processes_add_is_taken_off_every_later_look(
    model: ir.Model, workspace: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = workspace(model)
    search = search_of(work, 0.5)
    quick = search.refine()
    assert quick is not None and not quick.confirmed
    monkeypatch.setattr(work, "fresh_ratios", lambda path: [(1.2 * work.ratios(path)[0], 1.23 * work.ratios(path)[0])])
    slower = search.confirm(quick)
    assert slower.confirmed and work.bias == pytest.approx((1.2,))
    assert slower.share(search.limits) == pytest.approx(1.23 * quick.ratios[0] / 0.5)
    again = search.refine()
    assert again is not None and again.plan != quick.plan
    assert 1.2 * again.ratios[0] <= 0.5 * CLOSE[1]
    assert work.rounds[-1] != work.rounds[0] and any("fresh_ratio" in entry for entry in work.rounds)


def test_a_right_table_lands_at_once(model: ir.Model, workspace: Make) -> None:
    search = search_of(workspace(model), 0.5)
    found = search.refine()
    assert found is not None and 0.955 <= found.share((0.5,)) <= CLOSE[1]  # what the levels of so small a model allow
    assert len(search.tried) <= len(CALIBRATED) + 2
    exact = search.solve(CLOSE[1])
    assert exact is not None and found.error <= exact.error  # nothing that fits loses less


def test_an_easier_target_costs_less_error(model: ir.Model, workspace: Make) -> None:
    work = workspace(model)
    sensitivity = measure_sensitivity(work)
    found = [search_of(work, goal, sensitivity).refine() for goal in (0.8, 0.6, 0.4, 0.2)]
    errors = [candidate.error for candidate in found if candidate is not None]
    assert len(errors) == 4 and errors == sorted(errors)


def test_every_target_must_be_met(model: ir.Model, workspace: Make) -> None:
    search = search_of(workspace(model, targets=2), 0.6)
    search.goal = (0.6, 0.4)
    found = search.refine()
    assert found is not None
    assert found.ratios[1] <= 0.4 * CLOSE[1] and len(found.ratios) == 2


def test_a_target_below_the_floor(model: ir.Model, workspace: Make) -> None:
    search = search_of(workspace(model), 0.001)
    assert search.refine() is None
    before = min(max(candidate.ratios) for candidate in search.tried)
    search.floor()
    floor = min(max(candidate.ratios) for candidate in search.tried)
    assert floor <= before
    assert 0.001 < floor < 0.3


def test_no_branches_are_dropped_where_the_user_forbids_it(model: ir.Model, workspace: Make) -> None:
    search = search_of(workspace(model, drop_branches=False), 0.3)
    found = search.refine()
    assert found is not None and found.plan.dropped == ()
    assert all(entry["dropped"] == 0 for entry in search.work.rounds)


def test_plans_leave_out_what_stays_and_what_goes_anyway(model: ir.Model, workspace: Make) -> None:
    search = search_of(workspace(model), 0.25)
    for candidate in search.tried:
        gone = candidate.solution.dropped
        for group, width in candidate.plan.widths.items():
            assert width < search.work.graph.group(group).width
            assert search.sensitivity.branch_of_group.get(group, gone) >= gone
        assert len(candidate.plan.dropped) == gone


def test_a_new_aim_starts_from_what_was_learned(model: ir.Model, workspace: Make) -> None:
    """A prediction that is far off is not believed again: rounds are few, and a moved target would use them up."""
    search = search_of(workspace(model), 0.4)
    before = len(search.work.rounds)
    search.correction = 1.3  # as if plans had measured that much less than was aimed at
    assert search.refine() is not None
    predicted = [entry["predicted_ratio"][0] for entry in search.work.rounds[before:]]
    assert predicted[0] > 1.1 * 0.4 and search.correction == pytest.approx(1, abs=0.1)
    before = len(search.work.rounds)
    search.goal = (0.38,)
    assert search.refine() is not None
    assert search.work.rounds[before]["predicted_ratio"][0] < 0.39
