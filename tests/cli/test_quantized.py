"""The commands on models that are quantized already."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

import onnxprune
from onnxprune.cli import main
from passes.quantization.qdq import quiet

FORMS = ("qdq", "qoperator", "dynamic")


class Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._calls = iter([{"image": images[k : k + 1]} for k in range(8)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._calls, None)


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits_mlp in every quantized form, and its calibration data."""
    folder = tmp_path_factory.mktemp("quantized")
    onnx.save(onnxprune.canonicalize(models / "digits_mlp.onnx"), folder / "float.onnx")
    data = dict(np.load(models / "digits_calib.npz"))
    np.savez(folder / "calib.npz", **data)
    given = str(folder / "float.onnx")
    with quiet():
        for form, kind in (("qdq", QuantFormat.QDQ), ("qoperator", QuantFormat.QOperator)):
            quantize_static(given, folder / f"{form}.onnx", Reader(data["image"]), kind, per_channel=True)
        quantize_dynamic(given, folder / "dynamic.onnx")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs(path: Path, folder: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": np.load(folder / "calib.npz")["image"][:16]})[0])


@pytest.mark.parametrize("form", FORMS)
def test_analyze(folder: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(folder / f"{form}.onnx"), "--format", "json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [(group["kind"], group["width"]) for group in groups] == [("neuron", 192), ("neuron", 128)]


@pytest.mark.parametrize("form", FORMS)
def test_prune(folder: Path, here: Path, form: str) -> None:
    """Re-fitted weights in 8 bits follow the model; where weights are operands of quantized operators, the report says
    that they are not fitted.
    """
    arguments = ["--ratio", "0.3", "--calib-data", str(folder / "calib.npz"), "--report", "r.json"]
    assert main(["prune", str(folder / f"{form}.onnx"), "-o", "p.onnx", *arguments]) == 0
    report = json.loads((here / "r.json").read_text())
    assert [group["width_after"] for group in report["groups"]] == [134, 90]
    assert (here / "p.onnx").stat().st_size < 0.75 * (folder / f"{form}.onnx").stat().st_size
    assert runs(here / "p.onnx", folder).shape == (16, 10)
    assert report["drift"]["value"] < (0.1 if form == "qdq" else 0.6)
    assert any("not fitted" in note for note in report["notes"]) is (form != "qdq")


def test_prune_to_a_share_of_the_macs(folder: Path, here: Path) -> None:
    arguments = ["--macs", "0.6x", "--calib-data", str(folder / "calib.npz"), "--report", "r.json"]
    assert main(["prune", str(folder / "qdq.onnx"), "-o", "p.onnx", *arguments]) == 0
    assert json.loads((here / "r.json").read_text())["macs_ratio"] == pytest.approx(0.6, abs=0.02)


@pytest.mark.slow
def test_a_target_is_met_without_quantizing_twice(folder: Path, here: Path) -> None:
    arguments = ["--calib-data", str(folder / "calib.npz"), "--report", "r.json", "--max-drift", "3", "--threads", "1"]
    assert main([str(folder / "qdq.onnx"), "-o", "s.onnx", "--target-latency", "0.8x", *arguments]) == 0
    report = json.loads((here / "r.json").read_text())
    assert report["scheme"] == "float"
    assert any("quantized already" in note for note in report["notes"])
    before, after = (onnx.load(path).graph.node for path in (folder / "qdq.onnx", here / "s.onnx"))
    assert [node.op_type for node in after] == [node.op_type for node in before]
