"""The Python API on the project's own models. Latency comes from a formula but for one test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api, ir
from onnxprune.cli import tasks
from onnxprune.errors import AccuracyError, DataError, OnnxpruneError, TargetNotMetError, UsageError
from onnxprune.progress import SilentProgress
from onnxprune.stats import Feeds, model_drift

Residual = Callable[..., ir.Model]
FIRST, SECOND = "hidden.1.weight:0", "hidden.3.weight:0"


def check_written(report: dict[str, Any], result: onnx.ModelProto) -> None:
    """What every report of a finished run owes."""
    onnx.checker.check_model(result, full_check=True)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["output"]["nodes"] == len(result.graph.node)
    assert report["seconds"] >= sum(report["stages"].values()) - 0.01 and report["stages"]
    assert report["oracle"] is None or report["oracle"]["ok"]
    assert report["oracle"] is not None or not any(g["removed"] for g in report["groups"])


def same_graph(first: onnx.ModelProto, second: onnx.ModelProto) -> None:
    assert list(first.graph.node) == list(second.graph.node)
    assert list(first.graph.initializer) == list(second.graph.initializer)


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet", "digits_resnet_dynamo", "digits_vit"])
def test_prune_by_ratio(name: str, models: Path, calibration: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "out.onnx", tmp_path / "r.json"
    result = api.prune(models / f"{name}.onnx", ratio=0.25, calib_data=calibration, output=output, report=report)
    check_written(result.report, result.model)
    assert json.loads(report.read_text()) == result.report
    assert onnx.load(output) == result.model
    for group in result.report["groups"]:
        assert group["width_after"] == pytest.approx(0.75 * group["width_before"], abs=1)
    assert result.report["met"] and 0.3 < result.report["macs_ratio"] < 0.9
    assert result.report["drift"]["value"] < 0.5


def test_compensation_helps(mlp: Path, calibration: Path) -> None:
    plain, fitted = (
        api.prune(mlp, ratio=0.5, calib_data=calibration, compensate=how).report["drift"]["value"]
        for how in (False, True)
    )
    assert fitted < 0.8 * plain


def test_prune_to_a_share_of_the_macs(mlp: Path, calibration: Path) -> None:
    result = api.prune(mlp, macs=0.6, calib_data=calibration)
    check_written(result.report, result.model)
    assert 0.5 < result.report["macs_ratio"] <= 0.6
    assert result.report["target"] == {"kind": "macs", "value": 0.6, "ep": []}


def test_a_share_of_the_macs_that_cannot_be(mlp: Path, calibration: Path) -> None:
    with pytest.raises(TargetNotMetError, match="cannot be reached") as caught:
        api.prune(mlp, macs=0.0001, calib_data=calibration)
    report = caught.value.report  # type: ignore[attr-defined]
    assert report["met"] is False and report["output"] is None and report["model"]["params"] == 222794


def test_prune_by_a_specification(mlp: Path, calibration: Path, tmp_path: Path) -> None:
    stay = [1, 5, 7, 100]
    result = api.prune(mlp, spec={FIRST: 40, SECOND: stay}, calib_data=calibration)
    check_written(result.report, result.model)
    groups = {group["name"]: group for group in result.report["groups"]}
    assert groups[FIRST]["width_after"] == 40 and groups[SECOND]["width_after"] == 4
    removed = {(s["tensor"], s["axis"]): s["indices"] for s in groups[SECOND]["removed"]}
    assert removed[("hidden.3.weight", 0)] == [unit for unit in range(128) if unit not in stay]
    (tmp_path / "keep.json").write_text(json.dumps({"keep": {FIRST: 40, SECOND: stay}}))
    again = api.prune(mlp, spec=tmp_path / "keep.json", calib_data=calibration)
    assert again.model == result.model


def test_the_report_is_enough_to_prune_again(mlp: Path, calibration: Path) -> None:
    """Slicing what `removed` names out of the canonical model gives the weights of an uncompensated run."""
    result = api.prune(mlp, ratio=0.5, calib_data=calibration, compensate=False)
    base = {t.name: onnx.numpy_helper.to_array(t) for t in onnxprune.canonicalize(mlp).graph.initializer}
    for piece in (piece for group in result.report["groups"] for piece in group["removed"]):
        if piece["tensor"] in base:
            base[piece["tensor"]] = np.delete(base[piece["tensor"]], piece["indices"], piece["axis"])
    found = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    for name in ("hidden.1.weight", "hidden.1.bias", "hidden.3.weight", "head.weight"):
        np.testing.assert_array_equal(found[name], base[name])


def test_pruning_by_nothing_canonicalises(mlp: Path) -> None:
    result = api.prune(mlp, ratio=0)
    same_graph(result.model, onnxprune.canonicalize(mlp))
    assert result.report["drift"]["value"] == 0.0 and result.report["met"]


def test_the_same_seed_gives_the_same_bytes(mlp: Path, calibration: Path) -> None:
    first, second = (api.prune(mlp, ratio=0.4, calib_data=calibration, seed=3).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_dropping_branches_is_an_option(linear_first: Residual) -> None:
    model = linear_first(blocks=1, width=16, inner=16)  # the stem can take over the branch, fewer units cannot
    with_drops, without = (api.prune(ir.to_proto(model), macs=0.3, drop_branches=how).report for how in (True, False))
    assert with_drops["dropped_branches"] and not without["dropped_branches"]
    assert with_drops["macs_ratio"] <= 0.5 and without["macs_ratio"] <= 0.5


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({}, UsageError, "exactly one of"),
        ({"ratio": 0.5, "macs": 0.5}, UsageError, "exactly one of"),
        ({"ratio": 1.0}, UsageError, "the fraction to remove"),
        ({"ratio": float("nan")}, UsageError, "the fraction to remove"),
        ({"ratio": -0.1}, UsageError, "the fraction to remove"),
        ({"macs": 1.0}, UsageError, "the fraction to be left"),
        ({"ratio": 0.5, "criterion": "luck"}, UsageError, "unknown criterion"),
        ({"ratio": 0.5, "granularity": "toe"}, UsageError, "granularity"),
        ({"ratio": 0.5, "freeze": "("}, UsageError, "not a regular expression"),
        ({"ratio": 0.5, "freeze": "."}, TargetNotMetError, "nothing in this model can be pruned: frozen by name"),
        ({"ratio": 0.001}, TargetNotMetError, "would keep all its units"),
        ({"spec": {}}, TargetNotMetError, "would keep all its units"),
        ({"spec": {FIRST: 192}}, TargetNotMetError, "would keep all its units"),
        ({"spec": {"nobody": 3}}, UsageError, "no group 'nobody'"),
        ({"spec": {FIRST: 0}}, DataError, "a width must be 1 to 192, not 0"),
        ({"spec": {FIRST: 193}}, DataError, "a width must be 1 to 192"),
        ({"spec": {FIRST: [192]}}, DataError, "unit 192 is not between 0 and 191"),
        ({"spec": "missing.json"}, UsageError, "cannot read the specification"),
        ({"spec": __file__}, DataError, "is not JSON"),
        ({"ratio": 0.5, "calib_data": "missing.npz"}, OnnxpruneError, "missing.npz"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_pruned_is_said_in_one_line(
    options: dict[str, Any], kind: type[OnnxpruneError], said: str, mlp: Path
) -> None:
    with pytest.raises(kind, match=said) as caught:
        api.prune(mlp, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"x"', "null"])
def test_a_specification_that_is_no_mapping(text: str, mlp: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match="a specification is"):
        api.prune(mlp, spec=tmp_path / "s.json")


def accuracy(models: Path) -> Callable[[Any], float]:
    data = np.load(models / "digits_eval.npz")

    def top1(session: Any) -> float:
        return 100 * float(np.mean(session.run(None, {"image": data["image"]})[0].argmax(1) == data["label"]))

    return top1


@pytest.mark.usefixtures("formula_machine")
@pytest.mark.parametrize("target", ["0.7x", "0.4x"])
def test_compress_to_a_ratio(target: str, mlp: Path, models: Path, calibration: Path, tmp_path: Path) -> None:
    result = api.compress(
        mlp,
        target_latency=target,
        calib_data=calibration,
        precision=["fp32"],
        threads=1,
        evaluate=accuracy(models),
        output=tmp_path / "o.onnx",
        dump_canonical=tmp_path / "c.onnx",
    )
    report, limit = result.report, float(target[:-1])
    check_written(report, result.model)
    assert report["met"] and 0.8 * limit < report["speedup"]["cpu"]["upper95"] <= limit
    assert report["speedup"]["cpu"]["verdict"] == "FASTER"
    assert report["result"]["cpu"]["p50_ms"] < report["baseline"]["cpu"]["p50_ms"]
    assert report["search"] and all(len(entry["measured_ratio"]) == 1 for entry in report["search"])
    assert report["eval"]["metric"] == "top1" and report["eval"]["after"] > report["eval"]["before"] - 3
    assert onnx.load(tmp_path / "o.onnx") == result.model
    same_graph(onnx.load(tmp_path / "c.onnx"), onnxprune.canonicalize(mlp))
    assert {"measuring", "certifying", "evaluating"} <= set(report["stages"])
    feeds = Feeds.load(calibration, ir.load(mlp))
    drift = model_drift(ir.load(mlp), ir.from_proto(result.model), feeds)
    assert max(drift.values()) == pytest.approx(report["drift"]["value"], rel=1.0)


@pytest.mark.usefixtures("formula_machine")
def test_compress_to_milliseconds_on_a_residual_network(residual: Residual) -> None:
    model = residual(blocks=3, width=32, inner=48)
    result = api.compress(
        ir.to_proto(model), target_latency="2ms", precision=["fp32"], threads=1, max_drift=2.0, batch=1, freeze="stem"
    )
    report = result.report
    check_written(report, result.model)
    assert report["met"] and report["result"]["cpu"]["p50_upper95_ms"] <= 2.0
    assert report["target"] == {"kind": "seconds", "value": 2e-3, "ep": ["cpu"]}
    assert any("synthetic" in note for note in report["notes"])
    assert result.model.graph.initializer[0].dims[1] == 3


@pytest.mark.usefixtures("formula_machine")
def test_a_target_below_the_floor(mlp: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetNotMetError, match=r"the lowest latency measured is 0\.\d+x") as caught:
        api.compress(
            mlp,
            target_latency="0.001x",
            calib_data=calibration,
            precision=["fp32"],
            report=tmp_path / "r.json",
            threads=1,
        )
    report = caught.value.report  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "r.json").read_text()) == report
    assert not report["met"] and report["output"] is None
    assert 0.001 < report["floor"]["cpu"] < 0.5
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("formula_machine")
def test_best_effort_gives_the_lowest_there_is(mlp: Path, calibration: Path) -> None:
    result = api.compress(
        mlp,
        target_latency="0.001x",
        calib_data=calibration,
        precision=["fp32"],
        best_effort=True,
        max_drift=10,
        threads=1,
    )
    assert not result.report["met"]
    assert isinstance(result.missed, TargetNotMetError) and "cannot be met" in str(result.missed)
    assert result.report["speedup"]["cpu"]["ratio"] == pytest.approx(result.report["floor"]["cpu"], rel=1e-3)


@pytest.mark.usefixtures("formula_machine")
def test_the_command_line_ends_with_what_a_best_effort_missed(mlp: Path, calibration: Path, tmp_path: Path) -> None:
    options = {
        "calib_data": str(calibration),
        "precision": ["fp32"],
        "best_effort": True,
        "max_drift": 10,
        "threads": 1,
    }
    written = {"output": str(tmp_path / "o.onnx"), "report": str(tmp_path / "r.json")}
    request = {"model": str(mlp), "evaluate": None, "options": {"target_latency": "0.001x", **options, **written}}
    with pytest.raises(TargetNotMetError):
        tasks.compress(request, SilentProgress())
    assert {path.name for path in tmp_path.iterdir()} >= {"o.onnx", "r.json"}


@pytest.mark.usefixtures("formula_machine")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_drift": 1e-6}, "the outputs drift by"),
        ({"evaluate": lambda s: -s.get_outputs()[0].shape[1], "max_drop": -1.0}, "the metric falls"),
    ],
)
def test_the_accuracy_gate(options: dict[str, Any], said: str, mlp: Path, calibration: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    with pytest.raises(AccuracyError, match=said) as caught:
        api.compress(
            mlp, target_latency="0.4x", calib_data=calibration, precision=["fp32"], threads=1, output=output, **options
        )
    report = caught.value.report  # type: ignore[attr-defined]
    assert report["met"] is False and report["output"] is not None and not output.exists()


@pytest.mark.usefixtures("formula_machine")
def test_nothing_to_compress(mlp: Path) -> None:
    with pytest.raises(TargetNotMetError, match="nothing in this model can be pruned") as caught:
        api.compress(mlp, target_latency="0.5x", freeze=".", precision=["fp32"], threads=1)
    assert caught.value.report["met"] is False  # type: ignore[attr-defined]


@pytest.mark.usefixtures("formula_machine")
def test_the_metric_of_the_input_model_is_known_where_the_target_is_not_met(mlp: Path, models: Path) -> None:
    with pytest.raises(TargetNotMetError) as caught:
        api.compress(mlp, target_latency="0.001x", precision=["fp32"], evaluate=accuracy(models), threads=1)
    metric = caught.value.report["eval"]  # type: ignore[attr-defined]
    assert metric["before"] > 90 and metric["after"] is None


def test_an_evaluation_that_fails_does_so_before_the_search(mlp: Path) -> None:
    def broken(session: Any) -> float:
        raise DataError("no labels")

    with pytest.raises(DataError, match="no labels"):  # no machine is measured: the fixture is not asked for
        api.compress(mlp, target_latency="0.5x", evaluate=broken, threads=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no target"),
        ({"target_latency": "5"}, "has no unit"),
        ({"target_latency": "1.5x"}, "must be under 1x"),
        ({"target_latency": "0.5x", "precision": ["fp8"]}, "unknown precision 'fp8'"),
        ({"target_latency": "0.5x", "effort": "huge"}, "unknown effort 'huge'; choose among fast, normal, best"),
        ({"target_latency": "0.5x", "without": ["luck"]}, "unknown ingredient 'luck'"),
        ({"target_latency": "0.5x", "eps": ["gpu9"]}, "unknown execution provider"),
        ({"target_latency": "0.5x", "input_shapes": {"image": (1, 1, 8, 8)}}, "not 1x1x8x8"),
    ],
)
def test_requests_that_cannot_be_carried_out(options: dict[str, Any], said: str, mlp: Path) -> None:
    with pytest.raises(UsageError, match=said):
        api.compress(mlp, **options)


def test_an_unknown_option_is_a_type_error(mlp: Path) -> None:
    with pytest.raises(TypeError, match="speed"):
        api.compress(mlp, target_latency="0.5x", speed=9)


@pytest.mark.slow
def test_compress_on_this_machine(mlp: Path, calibration: Path) -> None:
    """With real measurements: the target is met with a bound, or the error says how low it gets."""
    try:
        result = api.compress(mlp, target_latency="0.8x", calib_data=calibration, precision=["fp32"], threads=1)
    except TargetNotMetError as error:
        report = error.report  # type: ignore[attr-defined]
        assert not report["met"] and report["search"]
    else:
        assert result.report["met"] and result.report["speedup"]["cpu"]["upper95"] <= 0.8
