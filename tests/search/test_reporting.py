"""The report as data: strict JSON, true sizes, what left every group, and the time of every stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onnxprune import channels, ir
from onnxprune.api import facts
from onnxprune.progress import SilentProgress
from onnxprune.report import DriftFacts, LatencyFacts, ModelFacts, Report, SpeedupFacts, TargetFacts
from onnxprune.search.stopwatch import Stopwatch

Residual = Callable[..., ir.Model]


def example() -> Report:
    model = ModelFacts("m.onnx", "0" * 64, 3, 10, 20, 30)
    report = Report(model, TargetFacts("ratio", 0.5, ("cpu",)), 7, {"cpu": "x"}, {"numpy": "2"})
    report.baseline["cpu"] = LatencyFacts(1.0, 1.1, 1.2, 1.05, 2, (0.001, 0.0011))
    report.search.append({"measured_ratio": [np.float64(0.5)], "levels": np.int64(3)})
    return report


def test_a_report_survives_json() -> None:
    report = example()
    found = json.loads(report.to_json())
    assert found == report.to_dict()
    assert found["schema_version"] == 1 and found["target"] == {"kind": "ratio", "value": 0.5, "ep": ["cpu"]}
    assert found["baseline"]["cpu"]["raw_s"] == [0.001, 0.0011]
    assert found["search"] == [{"measured_ratio": [0.5], "levels": 3}]
    assert found["met"] is False and found["output"] is None


def test_figures_that_are_not_finite_are_null() -> None:
    report = example()
    report.speedup["cpu"] = SpeedupFacts(0.5, float("-inf"), float("inf"), "INCONCLUSIVE")
    report.drift = DriftFacts("m", float("nan"), {"y": np.float32("inf")})
    found = json.loads(report.to_json())
    assert found["speedup"]["cpu"] == {"ratio": 0.5, "lower95": None, "upper95": None, "verdict": "INCONCLUSIVE"}
    assert found["drift"]["value"] is None and found["drift"]["outputs"] == {"y": None}


def test_model_facts(residual: Residual, tmp_path: Path) -> None:
    model = residual(blocks=1, width=8, inner=4)
    path = tmp_path / "m.onnx"
    ir.save(model, path)
    found = facts.model_facts(model, path, {"x": (2, 3, 8, 8)}, "shown.onnx")
    assert found.path == "shown.onnx" and found.bytes == path.stat().st_size
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    weights = 8 * 3 * 9 + 8 + 4 * 8 * 9 + 4 + 8 * 4 * 9 + 8 + 8 * 5 + 5
    assert found.params == weights
    assert found.macs == 2 * (64 * 9 * (8 * 3 + 2 * 4 * 8) + 8 * 5)


def test_group_facts_name_every_slice(residual: Residual) -> None:
    model = residual(blocks=1, width=8, inner=4)
    graph = channels.analyze(model)
    inner = next(group for group in graph.groups if group.width == 4)
    found = facts.group_facts(graph, {inner.name: np.array([True, False, True, False])})
    assert [(group.width_before, group.width_after) for group in found] == [
        (g.width, 2 if g is inner else g.width) for g in graph.groups
    ]
    removed = {(s.tensor, s.axis): s.indices for group in found for s in group.removed}
    assert removed[("a0.w", 0)] == removed[("a0.b", 0)] == removed[("b0.w", 1)] == (1, 3)
    assert all(group.removed == () for group in found if group.width_after == group.width_before)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Listening(SilentProgress):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        self.told.append((name, detail, remaining))

    def decide(self, text: str) -> None:
        self.told.append(("decided", text))

    def close(self, *, failed: bool = False) -> None:
        self.told.append(("closed", failed))


def test_stages_add_up_by_name() -> None:
    clock = Clock()
    watch = Stopwatch(SilentProgress(), clock)
    clock.now += 0.5
    for name, detail, seconds in (("a", "", 1.0), ("a", "more", 2.0), ("b", "", 4.0), ("a", "", 8.0)):
        watch.stage(name, detail)
        clock.now += seconds
    assert watch.stages == {"a": 11.0, "b": 4.0}
    clock.now += 1.0
    assert watch.stages == {"a": 12.0, "b": 4.0}  # the last stage goes on
    assert watch.seconds == 16.5


def test_a_stopwatch_passes_everything_on() -> None:
    inner = Listening()
    watch = Stopwatch(inner)
    watch.stage("a", "b", remaining=3.0)
    watch.decide("c")
    watch.table([["d"]])
    watch.close(failed=True)
    assert inner.told == [("a", "b", 3.0), ("decided", "c"), ("closed", True)]


def test_no_stage_no_time() -> None:
    assert Stopwatch(SilentProgress()).stages == {}
