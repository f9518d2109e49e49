"""The small models of `models/`: what their README says of them holds, and their recipes still export them."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "models"
ACCURACY = {"digits_resnet": 99.33, "digits_resnet_dynamo": 99.33, "digits_vit": 98.0, "digits_mlp": 98.33}


def outputs(path: Path, image: Any) -> Any:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": image})[0]


@pytest.mark.parametrize(("name", "accuracy"), ACCURACY.items())
def test_accuracy_and_size(name: str, accuracy: float) -> None:
    path = FOLDER / f"{name}.onnx"
    data = np.load(FOLDER / "digits_eval.npz")
    hits = outputs(path, data["image"]).argmax(1) == data["label"]
    assert 100 * hits.mean() == pytest.approx(accuracy, abs=0.34)
    assert path.stat().st_size < 1_000_000
    onnx.checker.check_model(path, full_check=True)


def test_every_committed_model_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.onnx")} == set(ACCURACY)


def test_both_exports_are_the_same_function() -> None:
    image = np.load(FOLDER / "digits_eval.npz")["image"][:50]
    first, second = (outputs(FOLDER / f"digits_resnet{suffix}.onnx", image) for suffix in ("", "_dynamo"))
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_operators_that_the_models_are_there_for() -> None:
    nodes = onnx.load(FOLDER / "digits_resnet.onnx").graph.node
    groups = [a.i for node in nodes if node.op_type == "Conv" for a in node.attribute if a.name == "group"]
    assert {1, 2, 4, 96, 128} <= set(groups)
    assert sum(node.op_type == "BatchNormalization" for node in nodes) == 21


def test_calibration_data_is_apart_from_evaluation_data() -> None:
    calibration = np.load(FOLDER / "digits_calib.npz")["image"]
    evaluation = np.load(FOLDER / "digits_eval.npz")
    assert calibration.shape == (512, 1, 32, 32)
    assert calibration.dtype == np.float32
    assert evaluation["label"].shape == (600,)
    assert 0 <= calibration.min() < calibration.max() <= 1
    seen = {image.tobytes() for image in calibration}
    assert not any(image.tobytes() in seen for image in evaluation["image"])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["DigitsResNet", "DigitsViT", "DigitsMLP"])
def test_recipes_export_what_the_network_computes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("make_models", FOLDER / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(recipe)
        torch.manual_seed(0)
        model = getattr(recipe, name)().eval()
        recipe.export(model, "torchscript", tmp_path / "m.onnx")
        image = torch.rand(3, 1, 32, 32)
        expected = model(image).detach().numpy()
    monkeypatch.delitem(sys.modules, "networks")
    np.testing.assert_allclose(outputs(tmp_path / "m.onnx", image.numpy()), expected, rtol=1e-3, atol=1e-4)
