"""The commands on the small models, with the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune.cli import main

KINDS = {
    "digits_resnet": {"channel"},
    "digits_resnet_dynamo": {"channel"},
    "digits_vit": {"channel", "head", "neuron"},
    "digits_mlp": {"neuron"},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def accuracy(path: Path, models: Path) -> float:
    data = np.load(models / "digits_eval.npz")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return 100 * float(np.mean(session.run(None, {"image": data["image"]})[0].argmax(1) == data["label"]))


@pytest.mark.parametrize("name", KINDS)
def test_analyze(name: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(models / f"{name}.onnx"), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {group["kind"] for group in found["groups"]} == KINDS[name]
    assert "graph output logits" in {row["reason"] for row in found["frozen"]}
    assert 0.9 < found["prunable"]["macs"] < 1


def test_rules_and_reasons(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(models / "digits_mlp.onnx")
    assert main(["analyze", model, "--rules"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["analyze", model, "--why", "head.weight:0"]) == 0
    assert "graph output logits" in capsys.readouterr().out
    assert main(["analyze", model, "--why", "nothing:0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_prune_by_ratio(here: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, calibration = str(models / "digits_mlp.onnx"), str(models / "digits_calib.npz")
    arguments = ["--ratio", "0.5", "--calib-data", calibration, "--report", "r.json"]
    assert main(["prune", model, "-o", "p.onnx", *arguments]) == 0
    assert "wrote p.onnx" in capsys.readouterr().out
    report = json.loads((here / "r.json").read_text())
    assert [(group["width_before"], group["width_after"]) for group in report["groups"]] == [(192, 96), (128, 64)]
    assert report["params_ratio"] < 0.55
    assert accuracy(here / "p.onnx", models) > 95
    assert main(["compare", model, "p.onnx", "--calib-data", calibration, "--format", "json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["value"] < 0.5


def test_prune_by_nothing_only_canonicalises(here: Path, models: Path) -> None:
    model = models / "digits_resnet.onnx"
    assert main(["prune", str(model), "--ratio", "0"]) == 0
    assert accuracy(here / "digits_resnet.onnxprune.onnx", models) == accuracy(model, models)
    nodes = onnx.load(here / "digits_resnet.onnxprune.onnx").graph.node
    assert not any(node.op_type == "BatchNormalization" for node in nodes)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 1, 32, 32), np.float32)}, "must be named"),
        ({"image": np.zeros((4, 1, 16, 16), np.float32)}, "shape"),
        ({"image": np.zeros((4, 1, 32, 32), np.int32)}, "float32"),
        ({"image": np.full((4, 1, 32, 32), np.nan, np.float32)}, "NaN"),
    ],
)
def test_calibration_data_that_does_not_fit(
    here: Path, models: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(here / "c.npz", **arrays)  # type: ignore[arg-type]
    model = str(models / "digits_mlp.onnx")
    assert main([model, "--target-latency", "0.5x", "--calib-data", "c.npz", "--report", "r.json"]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert [path.name for path in here.iterdir()] == ["c.npz"]


def test_an_impossible_target_names_the_floor(here: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(models / "digits_mlp.onnx")
    assert main([model, "--target-latency", "0.01x", "--threads", "1", "--report", "r.json"]) == 4
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "lowest latency measured" in err
    report = json.loads((here / "r.json").read_text())
    assert report["met"] is False
    assert report["output"] is None
    assert 0.01 < report["floor"]["cpu"] < 1
    assert [path.name for path in here.iterdir()] == ["r.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), [("digits_resnet", "0.6x"), ("digits_vit", "0.7x")])
def test_a_target_is_met(name: str, target: str, here: Path, models: Path) -> None:
    arguments = ["--target-latency", target, "--threads", "1", "--calib-data", str(models / "digits_calib.npz")]
    data = ["--eval-data", str(models / "digits_eval.npz"), "--labels", "label", "--metric", "top1", "--max-drop", "3"]
    assert main([str(models / f"{name}.onnx"), "-o", "s.onnx", "--report", "r.json", *arguments, *data]) == 0
    report = json.loads((here / "r.json").read_text())
    assert report["met"] is True
    assert report["speedup"]["cpu"]["verdict"] == "FASTER"
    assert report["speedup"]["cpu"]["upper95"] <= float(target[:-1])
    assert report["output"]["path"] == "s.onnx"
    assert accuracy(here / "s.onnx", models) == pytest.approx(report["eval"]["after"])


def reproduced(model: Path, here: Path, *arguments: str) -> list[bytes]:
    """The models that two processes with other hash seeds write, with one latency table."""
    found = []
    for seed in ("1", "2"):
        written = ["-o", f"{seed}.onnx", "--report", f"{seed}.json", "--best-effort", "--latency-table", "t.json"]
        command = [sys.executable, "-m", "onnxprune", str(model), "--threads", "1", *written, *arguments]
        ran = subprocess.run(command, cwd=here, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        assert ran.returncode in (0, 4), ran.stderr  # a loaded machine may not certify: the bytes are the same
        found.append((here / f"{seed}.onnx").read_bytes())
    first, second = (json.loads((here / f"{seed}.json").read_text()) for seed in ("1", "2"))
    assert second["latency_table"]["measured"] == 0 < second["latency_table"]["taken"]
    assert first["search"] == second["search"] and first["groups"] == second["groups"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_resnet", "digits_vit"])
def test_a_latency_table_reproduces_the_bytes(name: str, here: Path, models: Path) -> None:
    data = ["--calib-data", str(models / "digits_calib.npz"), "--target-latency", "0.7x", "--effort", "fast"]
    first, second = reproduced(models / f"{name}.onnx", here, *data)
    assert first == second


@pytest.mark.slow
@pytest.mark.skipif("ONNXPRUNE_ZOO" not in os.environ, reason="ONNXPRUNE_ZOO names no folder of models")
def test_a_latency_table_reproduces_a_network_of_others(here: Path) -> None:
    model = Path(os.environ["ONNXPRUNE_ZOO"], "resnet20", "model.onnx")
    first, second = reproduced(model, here, "--target-latency", "0.5x", "--effort", "fast")
    assert first == second
