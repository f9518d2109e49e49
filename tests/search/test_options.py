"""Ingredients that are switched off, and efforts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from onnxprune import ir
from onnxprune.errors import UsageError
from onnxprune.search.effort import EFFORTS, effort
from onnxprune.search.engine import search
from onnxprune.search.finish import finish
from onnxprune.search.plan import Plan, keep_masks
from onnxprune.search.refine import CALIBRATED
from onnxprune.search.sensitivity import measure_sensitivity
from onnxprune.search.workspace import Workspace

Residual = Callable[..., ir.Model]
Make = Callable[..., Workspace]


def test_more_effort_never_spends_less() -> None:
    rows = [[getattr(row, name) for name in vars(row) if name != "name"] for row in EFFORTS.values()]
    assert all(a <= b for less, more in pairwise(rows) for a, b in zip(less, more, strict=True))
    with pytest.raises(UsageError, match="unknown effort"):
        effort("none")


def test_without_depth_nothing_is_dropped(linear_first: Residual, workspace: Make) -> None:
    model = linear_first(blocks=1, width=16, inner=16)
    assert measure_sensitivity(workspace(model)).drops.branches
    assert not measure_sensitivity(workspace(model, without=frozenset({"depth"}))).drops.branches


@pytest.mark.usefixtures("formula_machine")
def test_without_correction_one_plan_is_measured(residual: Residual, workspace: Make) -> None:
    """The table says twice the truth of some clusters: the plan is off, and nothing corrects it."""
    model = residual(blocks=2, width=32, inner=48)

    def wrong(key: str) -> float:
        return 2.0 if sum(map(ord, key)) % 2 else 1.0

    single = workspace(model, "0.5x", wrong, without=frozenset({"correction"}), max_drift=9.0)
    outcome = search(single)
    most = len(CALIBRATED) + 1  # what the sum is calibrated on, and one plan
    assert len(single.rounds) <= most and outcome.certificate is not None
    corrected = workspace(model, "0.5x", wrong, max_drift=9.0)
    assert search(corrected).met and len(corrected.rounds) > most


def test_without_compensation_weights_are_only_sliced(residual: Residual, workspace: Make) -> None:
    model = residual(blocks=1)
    plain, fitted = (workspace(model, without=frozenset(names)) for names in (["compensation"], []))
    plan = Plan({group.name: group.width // 2 for group in plain.graph.groups})
    curves = measure_sensitivity(plain).curves
    drift = [finish(work, plan, keep_masks(plan, curves)).worst_drift for work in (plain, fitted)]
    assert drift[1] < drift[0]
