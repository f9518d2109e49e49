"""Evaluation by a script or by labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation import METRICS, from_data, from_options, from_script

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(str(MODELS / "digits_mlp.onnx"), providers=["CPUExecutionProvider"])


def script(folder: Path, text: str) -> Path:
    path = folder / "evaluation_script.py"
    path.write_text(text)
    return path


def test_a_function_of_a_file_with_a_neighbour(tmp_path: Path, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evaluation_neighbour.py").write_text("SCORE = 12\n")
    path = script(tmp_path, "from evaluation_neighbour import SCORE\ndef f(session): return SCORE + 0.5\n")
    assert from_script(path, "f")(session) == 12.5
    evaluate = from_options({"script": str(path), "function": "f"})
    assert evaluate is not None
    assert evaluate(session) == 12.5
    assert from_options(None) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "cannot be loaded"),
        ("import no_such_module_here\n", "cannot be loaded"),
        ("f = 3\n", "no function"),
    ],
)
def test_a_script_that_does_not_work(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        from_script(script(tmp_path, text), "f")


@pytest.mark.parametrize("value", ["'high'", "None", "float('nan')", "True", "[1.0]"])
def test_a_result_that_is_no_number(tmp_path: Path, session: Any, value: str) -> None:
    evaluate = from_script(script(tmp_path, f"def f(session): return {value}\n"), "f")
    with pytest.raises(DataError, match="finite number"):
        evaluate(session)


def test_a_function_that_fails(tmp_path: Path, session: Any) -> None:
    evaluate = from_script(script(tmp_path, "def f(session): return {}['score']\n"), "f")
    with pytest.raises(UsageError, match=r"f of evaluation_script.py failed: KeyError: 'score'"):
        evaluate(session)


def test_top1_of_labelled_data(session: Any) -> None:
    score = from_data(MODELS / "digits_eval.npz", "label", "top1")(session)
    assert score == pytest.approx(98.33, abs=0.01)
    assert from_data(MODELS / "digits_eval.npz", "label", "top5")(session) >= score


def test_data_that_does_not_fit(tmp_path: Path, session: Any) -> None:
    image = np.zeros((4, 1, 32, 32), np.float32)
    path = tmp_path / "e.npz"
    with pytest.raises(DataError, match=r"no array 'y'; it has image, label"):
        from_data(MODELS / "digits_eval.npz", "y", "top1")
    np.savez(path, image=image, y=np.zeros(3, np.int64))
    with pytest.raises(DataError, match="samples"):
        from_data(path, "y", "top1")(session)
    np.savez(path, picture=image, y=np.zeros(4, np.int64))
    with pytest.raises(DataError, match="'image'"):
        from_data(path, "y", "top1")(session)
    np.savez(path, image=image, y=np.zeros((4, 2)))
    with pytest.raises(DataError, match="one class"):
        from_data(path, "y", "top1")(session)
    path.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="readable"):
        from_data(path, "y", "top1")


def test_metrics() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert METRICS["top1"](scores, np.array([1, 0, 0, 0])) == 75.0
    assert METRICS["top5"](scores, np.array([1, 0, 0, 0])) == 100.0
    assert METRICS["pearson"](np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(100.0)
    assert METRICS["pearson"](np.array([[1.0], [2.0], [3.0]]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-100.0)
    assert METRICS["pearson"](np.ones(3), np.arange(3.0)) == 0.0
