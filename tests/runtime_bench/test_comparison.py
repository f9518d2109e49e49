"""The whole protocol on tiny models, with few launches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError, ModelError, UsageError
from runtime_bench import comparison, standalone
from runtime_bench.comparison import compare
from runtime_bench.result import Comparison
from runtime_bench.standalone import bench, render
from runtime_bench.target import Target


@pytest.fixture(scope="module")
def measured(double: tuple[Path, Path]) -> Comparison:
    """One model and one of twice the work."""
    return compare(double, Target("cpu"), launches=3, blocks=4, seed=7)


def test_twice_the_work_is_slower(measured: Comparison) -> None:
    speedup = measured.speedup()
    assert speedup.verdict == "SLOWER"
    assert 1.4 < speedup.ratio < 2.6
    assert measured.control is not None and 0.7 < measured.control.ratio < 1.4
    assert measured.synthetic


def test_every_arm_has_its_blocks_and_raw_values(measured: Comparison) -> None:
    for arm in measured.arms:
        assert len(arm.timing.values) == measured.launches == 3
        assert all(len(launch) == measured.blocks == 4 for launch in arm.timing.values)
        assert all(len(block) >= 3 for launch in arm.timing.values for block in launch)
        assert arm.info["providers"] == ["CPUExecutionProvider"]
        assert len(arm.info["warmup_runs"]) == 3 and min(arm.info["warmup_runs"]) >= 10
    quiet = [sum(block) for launch in measured.baseline.timing.values for block in launch]
    assert min(quiet) >= 0.03 or measured.baseline.info["preempted_runs"]


def test_the_result_is_json(measured: Comparison) -> None:
    stored = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    first, second = stored["arms"]
    assert first["speedup"] is None
    assert set(second["speedup"]) == {"ratio", "lower95", "upper95", "verdict"}
    assert {"p50_ms", "p90_ms", "p99_ms", "n", "raw_s"} <= set(first["timing"])
    assert stored["target"]["provider"] == "CPUExecutionProvider"
    assert stored["host"]["fingerprint"] and stored["seed"] == 7


def test_names_tell_models_apart(measured: Comparison, tmp_path: Path) -> None:
    assert [a.name for a in measured.arms] == ["one.onnx", "two.onnx"]
    assert comparison._names([tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx"]) == ["a/m.onnx", "b/m.onnx"]
    assert comparison._names([tmp_path / "m.onnx"] * 2) == ["m.onnx"] * 2


def test_the_baseline_has_no_speedup(measured: Comparison) -> None:
    with pytest.raises(ValueError, match="control"):
        measured.speedup(0)


def test_one_model_alone_has_percentiles_and_no_control(make_conv: Callable[..., bytes]) -> None:
    shown: list[float] = []
    result = compare(
        [make_conv()],
        Target("cpu", batch=3),
        {"x": np.ones((5, 8, 16, 16), np.float32)},
        launches=2,
        blocks=2,
        progress=lambda share, text: shown.append(share),
    )
    assert result.control is None and not result.synthetic
    assert result.baseline.timing.p50_upper95_ms > 0
    assert shown == sorted(shown) and shown[-1] == 1.0


def test_blocks_are_cut_for_slow_models_before_any_run(double: tuple[Path, Path]) -> None:
    result = compare(double, Target("cpu"), launches=1, blocks=50, max_seconds=0.5)
    assert result.blocks == 5  # three arms of 30 ms a block
    assert result.arms[1].speedup is not None


def test_bench_and_its_text(double: tuple[Path, Path]) -> None:
    result = bench(double, [Target("cpu")], launches=2, blocks=3)
    assert not result.faster_everywhere
    text = render(result)
    assert text.startswith("CPUExecutionProvider, 1 thread, batch 1, made-up inputs\n  one.onnx  P50 ")
    assert "two.onnx / one.onnx: " in text and "control (baseline against itself)" in text
    stored = result.to_json()
    assert stored["schema_version"] == 1 and stored["versions"]["onnxruntime"]


def test_doubts_are_printed(measured: Comparison) -> None:
    from dataclasses import replace

    from runtime_bench.result import Speedup

    arms = tuple(replace(a, info={**a.info, "warmup_settled": False}) for a in measured.arms)
    off = replace(measured, arms=arms, control=Speedup(1.1, 1.05, 1.15, "SLOWER"))
    text = render(standalone.BenchResult((off,)))
    assert "warning: one.onnx never ran evenly" in text and "warning: the control differs from 1" in text


def test_faults_of_models_and_data(conv: Path, tmp_path: Path) -> None:
    cpu = Target("cpu")
    with pytest.raises(UsageError, match="no model file"):
        compare([tmp_path / "absent.onnx"], cpu)
    with pytest.raises(ModelError):
        compare([b"no model"], cpu)
    with pytest.raises(DataError, match="no data for input 'x'"):
        compare([conv], cpu, {"y": np.zeros((1, 8, 16, 16), np.float32)})
    with pytest.raises(DataError, match="list of calls is empty"):
        compare([conv], cpu, [])
    with pytest.raises(UsageError, match="at least one"):
        compare([], cpu)


def test_ready_calls_are_cast_to_what_the_model_takes(gather: Path) -> None:
    calls = [{"ids": np.array([[0, 3, 2]], dtype=np.int32), "unused": np.zeros(1)}]
    assert compare([gather], Target("cpu"), calls, launches=1, blocks=1).baseline.timing.raw.size >= 3


@pytest.mark.slow
@pytest.mark.zoo
def test_a_model_is_never_told_from_itself(zoo: Path) -> None:
    model = zoo / "resnet20" / "model.onnx"
    verdicts = {compare([model, model], Target("cpu"), seed=seed).speedup().verdict for seed in range(10)}
    assert verdicts == {"INCONCLUSIVE"}
