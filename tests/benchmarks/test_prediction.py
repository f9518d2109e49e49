"""Predicted against measured latency: from the rounds of a search to the table of many reports."""

from __future__ import annotations

from typing import Any

import pytest
from prediction import table

from onnxprune.api.prediction import latency_model


def look(predicted: list[float], measured: list[float], scheme: str = "float", **more: Any) -> dict[str, Any]:
    return {"scheme": scheme, "predicted_ratio": predicted, "measured_ratio": measured, **more}


def test_errors_of_the_first_two_predictions() -> None:
    rounds = [
        look([], [1.0]),  # what the sum is calibrated on
        look([0.9], [0.4], "dynamic-int8"),
        look([0.55], [0.5]),
        look([0.44], [0.41]),
        look([0.43], [0.2], fresh_ratio=[0.2]),
        look([0.4], [0.1]),
    ]
    found = latency_model(rounds, "float")
    assert found is not None and found.rounds == 3
    assert found.first_error == pytest.approx(0.1) and found.corrected_error == pytest.approx(0.4 / 0.41 - 1)
    assert latency_model(rounds[:3], "float").corrected_error is None  # type: ignore[union-attr]
    assert latency_model(rounds, "static-int8-u8") is None


def test_the_target_that_was_predicted_worst_counts() -> None:
    found = latency_model([look([0.5, 0.4], [0.5, 0.5]), look([0.5, 0.4], [0.55, 0.5])], "float")
    assert found is not None and found.first_error == pytest.approx(-0.2)
    assert found.corrected_error == pytest.approx(0.5 / 0.55 - 1)


def test_the_table_has_a_row_a_report_and_medians() -> None:
    def report(path: str, first: float, corrected: float | None, kind: str = "ratio") -> dict[str, Any]:
        facts = {"rounds": 2, "first_error": first, "corrected_error": corrected}
        target = {"kind": kind, "value": 0.5}
        return {"model": {"path": path}, "target": target, "scheme": "float", "latency_model": facts}

    reports = [report("zoo/resnet20/model.onnx", 0.1, -0.02), report("m/vit.onnx", -0.04, None, "seconds")]
    text = table([*reports, {"latency_model": None}])
    assert "| resnet20 | 0.5x | float | 2 | +10.0% | -2.0% |" in text
    assert "| vit | 500 ms | float | 2 | -4.0% | - |" in text
    assert "median error, first: 7.0% of 2 (at most 8%)" in text
    assert "median error, corrected: 2.0% of 1 (at most 3%)" in text
    assert "median" not in table([])
