"""What can be asked for beside a latency: a size, multiply-accumulates, the lowest latency at a loss, and a front."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import api, ir
from onnxprune.errors import AccuracyError, TargetNotMetError, UsageError
from onnxprune.search import certify
from onnxprune.search.front import undominated
from onnxprune.search.least import Bracket
from onnxprune.search.plan import Plan, chosen_branches, keep_masks, narrowed
from onnxprune.search.resources import Resource, counted_macs, stored_bytes
from onnxprune.search.sensitivity import measure_sensitivity
from onnxprune.search.solve import Problem, evaluate
from onnxprune.search.workspace import Workspace
from runtime_bench import Comparison, Speedup

Residual = Callable[..., ir.Model]
Make = Callable[..., Workspace]


def compressed(model: Path, calibration: Path, **options: Any) -> api.Result:
    defaults: dict[str, Any] = {"precision": ["fp32"], "threads": 1, "effort": "fast", "calib_data": calibration}
    return api.compress(model, **(defaults | options))


@pytest.mark.parametrize("kind", ["size", "macs"])
def test_rows_are_exact_at_every_width_and_depth(kind: str, residual: Residual, workspace: Make) -> None:
    """The sum of the terms of a choice moves by what the built model really takes less."""
    work = workspace(residual(blocks=2, width=8, inner=12), samples=16)
    sensitivity = measure_sensitivity(work)
    resource = Resource(kind, 0.0)
    problem = Problem(sensitivity.choices, sensitivity.drops.steps, (resource.terms(work, sensitivity, None),), (0.0,))
    rng = np.random.default_rng(0)
    offsets = []
    for dropped in range(len(sensitivity.drops.branches) + 1):
        level = {c.group: int(rng.integers(len(c.widths))) for c in problem.choices}
        inside = {g for g, branch in sensitivity.branch_of_group.items() if branch < dropped}
        widths = {c.group: c.widths[level[c.group]] for c in problem.choices if c.group not in inside}
        plan = Plan(widths, tuple(branch.name for branch in sensitivity.drops.branches[:dropped]))
        gone = chosen_branches(work.branches, plan)
        model, _ = narrowed(work.base, work.graph, keep_masks(plan, sensitivity.curves), gone)
        real = counted_macs(work, model) if kind == "macs" else 4 * ir.parameters(model)
        offsets.append(real - evaluate(problem, level, dropped).seconds[0])
    assert len(offsets) > 1
    np.testing.assert_allclose(offsets, offsets[0], atol=16 if kind == "size" else 1e-6)  # reshape targets come and go


@pytest.mark.usefixtures("formula_machine")
@pytest.mark.parametrize("share", ["300KB"])
def test_a_size_is_met_by_the_written_file(share: str, mlp: Path, calibration: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    report = compressed(mlp, calibration, target_size=share, output=output).report
    limit = 0.5 * mlp.stat().st_size if share == "0.5x" else 300_000
    assert 0.8 * limit < output.stat().st_size <= limit
    assert report["met"] and report["output"]["bytes"] == output.stat().st_size == stored_bytes(output)
    assert report["limits"]["size"] <= limit
    assert report["target"]["kind"] == ("size" if share == "0.5x" else "bytes")
    assert report["speedup"]["cpu"]["verdict"] != "SLOWER"


@pytest.mark.usefixtures("formula_machine")
def test_macs_are_met_together_with_a_latency(mlp: Path, calibration: Path) -> None:
    report = compressed(mlp, calibration, target_latency="0.6x", target_macs="0.4x").report
    assert report["met"] and 0.3 < report["macs_ratio"] <= 0.4
    assert report["target"]["kind"] == "ratio" and report["limits"]["macs"] <= 0.4 * report["model"]["macs"]


@pytest.mark.usefixtures("formula_machine")
def test_a_size_that_cannot_be(mlp: Path, calibration: Path) -> None:
    with pytest.raises(TargetNotMetError, match=r"900 B cannot be reached: .* is the least") as caught:
        compressed(mlp, calibration, target_size="900B")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("formula_machine")
def test_a_limit_of_drift_alone_gives_the_lowest_latency(mlp: Path, calibration: Path) -> None:
    report = compressed(mlp, calibration, max_drift=0.1).report
    assert report["met"] and 0.06 < report["drift"]["value"] <= 0.1
    assert report["target"] == {"kind": "drift", "value": 0.1, "ep": ["cpu"]}
    assert 0.2 < report["speedup"]["cpu"]["ratio"] < 0.4


@pytest.mark.usefixtures("formula_machine")
def test_a_limit_of_the_metric_alone(mlp: Path, calibration: Path) -> None:
    """A metric that is the percentage of parameters that are left: what is lost is known for each latency."""
    size = ir.parameters(ir.load(mlp))

    def kept(session: Any) -> float:
        return 100.0 * sum(np.prod(shape) for shape in _weight_shapes(session)) / size

    report = compressed(mlp, calibration, evaluate=kept, max_drop=60.0, effort="normal").report
    assert report["target"]["kind"] == "drop" and report["met"]
    assert 40 < report["eval"]["before"] - report["eval"]["after"] <= 60


def _weight_shapes(session: Any) -> list[tuple[int, ...]]:
    model = onnx.load(session._model_path)
    return [tuple(tensor.dims) for tensor in model.graph.initializer]


@pytest.mark.usefixtures("formula_machine")
def test_no_loss_allowed_and_nothing_lossless_is_faster(mlp: Path, calibration: Path) -> None:
    with pytest.raises(TargetNotMetError, match="no model within the limits is certified to be faster"):
        compressed(mlp, calibration, max_drift=1e-7)


@pytest.mark.usefixtures("formula_machine")
def test_a_front_is_a_family_of_files(mlp: Path, calibration: Path, tmp_path: Path) -> None:
    result = compressed(mlp, calibration, pareto=3, output=tmp_path / "o.onnx", html=tmp_path / "o.html")
    front = result.report["front"]
    assert 2 <= len(front) <= 3 and result.report["met"] and len(result.models) == len(front)
    ratios = [each["speedup"]["cpu"]["ratio"] for each in front]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] < 1
    drifts = [each["drift"] for each in front]
    assert drifts == sorted(drifts)
    for number, each in enumerate(front, 1):
        path = tmp_path / f"o-{number}.onnx"
        assert path.stat().st_size == each["output"]["bytes"]
        onnx.checker.check_model(onnx.load(path), full_check=True)
    assert not (tmp_path / "o.onnx").exists()
    assert "<svg" in (tmp_path / "o.html").read_text()
    assert json.loads(json.dumps(result.report, allow_nan=False)) == result.report


@pytest.mark.usefixtures("formula_machine")
def test_the_gate_is_asked_before_anything_is_certified(mlp: Path, calibration: Path) -> None:
    with pytest.raises(AccuracyError, match="the outputs drift by"):
        compressed(mlp, calibration, target_macs="0.2x", max_drift=1e-6)


def test_undominated_points_are_in_order() -> None:
    points = [(0.9, 0.0), (0.5, 0.2), (0.6, 0.3), (0.4, 0.2), (0.3, 0.5), (0.3, 0.5)]
    assert [points[i] for i in undominated(points)] == [(0.9, 0.0), (0.4, 0.2), (0.3, 0.5)]


def test_a_bracket_closes_on_where_the_loss_meets_its_limit() -> None:
    """Loss 0.2 / latency: the limit of 1 is at 0.2."""
    bracket = Bracket(1.0)
    for _ in range(6):
        latency = bracket.next()
        bracket.place(latency, 0.2 / latency <= 1, 0.2 / latency)
    assert 0.17 < bracket.fails < 0.2 <= bracket.passes < 0.24


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pareto": 3, "target_latency": "0.5x"}, "exclude each other"),
        ({"pareto": 1}, "at least 2 models"),
        ({"target_size": "2"}, "has no unit"),
        ({"target_size": "1.5x"}, "must be under 1x"),
        ({"target_macs": "5ms"}, "unknown unit"),
        ({"max_drop": 1.0}, "needs a metric"),
        ({"max_drift": 0.1, "best_effort": True}, "does nothing without a target"),
        ({"pipeline": "constant-folding", "target_size": "0.5x"}, "need a search"),
    ],
)
def test_what_excludes_each_other(options: dict[str, Any], said: str, mlp: Path) -> None:
    with pytest.raises(UsageError, match=said):
        api.compress(mlp, **options)


@pytest.mark.usefixtures("formula_machine")
def test_a_plan_that_missed_is_not_finished_again(
    mlp: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate may miss by less than the next attempt aims lower; what it measured counts for its plan."""
    seen: list[bytes] = []
    exactly = certify.compare

    def certified(models: Sequence[Path], *args: Any, **options: Any) -> Comparison:
        seen.append(models[-1].read_bytes())
        exact = exactly(models, *args, **options)
        missed = Speedup(0.57, 0.57, 0.601, "FASTER") if len(seen) < 3 else Speedup(0.57, 0.57, 0.59, "FASTER")
        return replace(exact, arms=(*exact.arms[:-1], replace(exact.arms[-1], speedup=missed)))

    monkeypatch.setattr("onnxprune.search.certify.compare", certified)
    assert compressed(mlp, calibration, target_latency="0.6x").report["met"]
    first, again, second = seen
    assert first == again != second
