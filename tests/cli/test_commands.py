"""What commands ask the engine for, what they write, and what they print; the engine itself is replaced."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from onnxprune.cli import main, supervise
from onnxprune.cli.signals import Stopped
from onnxprune.errors import AccuracyError, LimitError, TargetNotMetError
from onnxprune.units import numbered

FACTS = {"path": "m.onnx", "sha256": "0", "nodes": 20, "params": 41_200, "macs": 15_000_000, "bytes": 170_000}
TIMING = {"p50_ms": 1.9, "p90_ms": 2.0, "p99_ms": 2.4, "p50_upper95_ms": 1.93, "n": 100, "raw_s": []}
REPORT: dict[str, Any] = {
    "model": FACTS,
    "output": {**FACTS, "path": "staged", "params": 20_600, "macs": 6_000_000, "bytes": 51_000, "nodes": 24},
    "target": {"kind": "ratio", "value": 0.5, "ep": ["cpu"]},
    "baseline": {"cpu": TIMING},
    "result": {"cpu": {**TIMING, "p50_ms": 0.893, "p50_upper95_ms": 0.91}},
    "speedup": {"cpu": {"ratio": 0.47, "lower95": 0.46, "upper95": 0.479, "verdict": "FASTER"}},
    "met": True,
    "eval": {"metric": "top1", "before": 99.0, "after": 98.5},
    "drift": {"metric": "relative output error", "value": 0.0312},
    "notes": ["the opset was raised from 11 to 13"],
    "seconds": 61.2,
}


class Engine:
    """Stands for the working process: keeps the request, writes outputs as the engine does, ends as told."""

    def __init__(self) -> None:
        self.task = ""
        self.request: dict[str, Any] = {}
        self.limits = supervise.Limits()
        self.result: dict[str, Any] = REPORT
        self.error: BaseException | None = None
        self.writes_model = True
        self.side_file = False

    def __call__(self, task: str, request: dict[str, Any], *, limits: supervise.Limits, **_: Any) -> dict[str, Any]:
        self.task, self.request, self.limits = task, request, limits
        options = request["options"]
        if options.get("report"):
            Path(options["report"]).write_text(json.dumps(self.result))
        if options.get("html"):
            Path(options["html"]).write_text("<!DOCTYPE html>")
        if options.get("output") and self.writes_model:
            front = self.result.get("front", ())
            for path in [numbered(Path(options["output"]), n + 1) for n in range(len(front))] or [options["output"]]:
                Path(path).write_bytes(b"small")
        if self.side_file:
            Path(options["output"] + ".data").write_bytes(b"weights")
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"model")
    (tmp_path / "c.npz").write_bytes(b"data")
    (tmp_path / "sub").mkdir()
    stand_in = Engine()
    monkeypatch.setattr(supervise, "run", stand_in)
    return stand_in


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"m.onnx", "c.npz", "sub"}


def test_a_front_moves_as_many_files_as_there_are_models(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three were asked for, two were worth it."""
    speedup = REPORT["speedup"]["cpu"]
    latency = {"cpu": REPORT["result"]["cpu"]}
    model = {"output": {**FACTS, "path": "staged"}, "latency": latency, "drift": 0.01, "metric": 98.0}
    fast = {**model, "drift": 0.2, "metric": 90.5, "speedup": {"cpu": {**speedup, "ratio": 0.2}}}
    front = [{**model, "speedup": {"cpu": speedup}}, fast]
    target = {"kind": "front", "value": 3, "ep": ["cpu"]}
    engine.result = {**REPORT, "target": target, "front": front, "output": None, "result": {}}
    assert main(["m.onnx", "--pareto", "3", "-o", "f.onnx", "--report", "r.json"]) == 0
    assert names(tmp_path) == {"f-1.onnx", "f-2.onnx", "r.json"}
    written = json.loads((tmp_path / "r.json").read_text())
    assert [each["output"]["path"] for each in written["front"]] == ["f-1.onnx", "f-2.onnx"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[-2:] == ["0.2000", "90.50"] and lines[-2:] == ["wrote f-1.onnx", "wrote f-2.onnx"]


def test_compress_writes_model_and_report_and_shows_the_table(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["m.onnx", "--target-latency", "0.5x", "--report", "sub/r.json", "--threads", "1"]) == 0
    assert names(tmp_path) == {"m.onnxprune.onnx", "sub/r.json"}
    assert (tmp_path / "m.onnxprune.onnx").read_bytes() == b"small"
    assert json.loads((tmp_path / "sub/r.json").read_text())["output"]["path"] == "m.onnxprune.onnx"
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    row = "latency P50, cpu 1.9 ms 893 us (95 %: at most 910 us) 0.470x (95 %: at most 0.479x) FASTER"
    assert " ".join(lines[1].split()) == row
    assert lines[4].split() == ["parameters", "41.2", "K", "20.6", "K", "0.500x"]
    assert lines[8].split() == ["top1", "99.00", "98.50", "-0.50"]
    assert lines[-3:] == ["the opset was raised from 11 to 13", "target 0.5x: met, in 61 s", "wrote m.onnxprune.onnx"]


def test_compress_hands_on_every_option(engine: Engine) -> None:
    arguments = (
        "--target-latency 5ms --calib-data c.npz --ep CPU --ep cuda --ep-option device_id=1 --batch 4 "
        "--input-shape x:1,3,8,8 --max-drift 0.3 --precision fp32 --no-drop-branches --freeze ^head "
        "--granularity head_dim --best-effort --effort fast --seed 7 "
        "--freeze-initializers --keep-batchnorm --cache-dir k --latency-table l --dump-ir t.txt "
        "--max-memory 9GB --timeout 2m"
    )
    assert main(["m.onnx", *arguments.split()]) == 0
    options = engine.request["options"]
    staged = {name: Path(options.pop(name)) for name in ("output", "dump_ir")}
    assert staged["output"].name == "m.onnxprune.onnx"
    assert staged["dump_ir"].name == "t.txt"
    assert options == {
        "target_latency": "5ms",
        "calib_data": "c.npz",
        "eps": ["cpu", "cuda"],
        "ep_options": {"device_id": "1"},
        "threads": None,
        "batch": 4,
        "input_shapes": {"x": [1, 3, 8, 8]},
        "target_size": None,
        "target_macs": None,
        "pareto": None,
        "max_drop": None,
        "max_drift": 0.3,
        "precision": ["fp32"],
        "drop_branches": False,
        "effort": "fast",
        "freeze": "^head",
        "granularity": "head_dim",
        "pipeline": None,
        "best_effort": True,
        "seed": 7,
        "freeze_initializers": True,
        "keep_batchnorm": True,
        "cache_dir": "k",
        "latency_table": "l",
        "report": None,
        "html": None,
        "dump_canonical": None,
    }
    assert engine.limits == supervise.Limits(9_000_000_000, 120.0)


def test_options_of_a_file_yield_to_the_command_line(engine: Engine, tmp_path: Path) -> None:
    lines = ['target-latency = "5ms"', "seed = 3", 'ep = ["cpu"]', "dry_run = false", "max-drift = 0.25"]
    (tmp_path / "o.toml").write_text("\n".join(lines))
    assert main(["m.onnx", "--config", "o.toml", "--seed", "4"]) == 0
    options = engine.request["options"]
    chosen = [options[name] for name in ("target_latency", "seed", "eps", "max_drift")]
    assert chosen == ["5ms", 4, ["cpu"], 0.25]


@pytest.mark.parametrize(("error", "code"), [(TargetNotMetError("floor 0.6x"), 4), (AccuracyError("drift 0.7"), 5)])
def test_an_unmet_target_keeps_the_report_and_no_model(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    engine.error, engine.writes_model, engine.result = error, False, {**REPORT, "met": False, "output": None}
    assert main(["m.onnx", "--target-latency", "0.5x", "--report", "r.json", "--html", "sub/r.html"]) == code
    assert names(tmp_path) == {"r.json", "sub/r.html"}
    assert json.loads((tmp_path / "r.json").read_text())["met"] is False
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_best_effort_keeps_the_model_too(engine: Engine, tmp_path: Path) -> None:
    engine.error = TargetNotMetError("floor 0.6x")
    assert main(["m.onnx", "--target-latency", "0.5x", "--best-effort", "-o", "b.onnx"]) == 4
    assert names(tmp_path) == {"b.onnx"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LimitError("memory"), 7),
        (Stopped(signal.SIGTERM), 143),
        (OSError(28, "No space left on device", "x"), 8),
        (Stopped(signal.SIGINT), 130),
    ],
)
def test_any_other_end_leaves_nothing(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    engine.error = error
    assert main(["m.onnx", "--target-latency", "0.5x", "--report", "r.json", "--html", "r.html"]) == code
    assert names(tmp_path) == set()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_side_file_moves_with_its_model(engine: Engine, tmp_path: Path) -> None:
    engine.side_file = True
    assert main(["m.onnx", "--target-latency", "0.5x", "-o", "sub/big.onnx"]) == 0
    assert names(tmp_path) == {"sub/big.onnx", "sub/big.onnx.data"}


def test_an_output_that_appears_meanwhile_is_not_replaced(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Engine):
        def __call__(self, *args: Any, **named: Any) -> dict[str, Any]:
            (tmp_path / "m.onnxprune.onnx").write_bytes(b"other run")
            return super().__call__(*args, **named)

    monkeypatch.setattr(supervise, "run", Slow())
    assert main(["m.onnx", "--target-latency", "0.5x"]) == 2
    assert (tmp_path / "m.onnxprune.onnx").read_bytes() == b"other run"


def test_overwrite_replaces(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "m.onnxprune.onnx").write_bytes(b"old")
    assert main(["m.onnx", "--target-latency", "0.5x", "--overwrite"]) == 0
    assert (tmp_path / "m.onnxprune.onnx").read_bytes() == b"small"


def test_outputs_have_the_permissions_of_ordinary_files(engine: Engine, tmp_path: Path) -> None:
    ordinary = tmp_path / "sub/ordinary"
    ordinary.write_bytes(b"")
    assert main(["m.onnx", "--target-latency", "0.5x"]) == 0
    assert (tmp_path / "m.onnxprune.onnx").stat().st_mode == ordinary.stat().st_mode


def test_a_dry_run_writes_nothing(engine: Engine, tmp_path: Path) -> None:
    assert main(["m.onnx", "--target-latency", "0.5x", "--dry-run"]) == 0
    assert engine.request["options"]["output"] is None
    assert names(tmp_path) == set()


def test_quiet_prints_nothing(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["m.onnx", "--target-latency", "0.5x", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_model_named_like_a_command(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "bench").write_bytes(b"model")
    assert main(["./bench", "--target-latency", "0.5x"]) == 0
    assert engine.request["model"] == "bench"
    assert main(["--target-latency", "0.5x", "-o", "x.onnx", "bench"]) == 0
    assert engine.task.endswith(":compress")
    assert main(["--", "bench"]) == 2


def test_prune_hands_on_its_options(engine: Engine) -> None:
    engine.result = {**REPORT, "target": {"kind": "macs", "value": 0.6, "ep": []}, "result": {}, "baseline": {}}
    arguments = "--macs 0.6x --criterion wanda --no-compensate --effort fast --calib-data c.npz"
    assert main(["prune", "m.onnx", "-o", "p.onnx", *arguments.split()]) == 0
    options = engine.request["options"]
    assert (options["macs"], options["ratio"], options["spec"]) == (0.6, None, None)
    assert (options["criterion"], options["compensate"], options["drop_branches"]) == ("wanda", False, False)
    assert options["effort"] == "fast"
    assert main(["prune", "m.onnx", "-o", "q.onnx", "--ratio", "0"]) == 0
    assert engine.request["options"]["ratio"] == 0.0


def test_bench_and_compare_print_tables(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    speedup = {"ratio": 0.5, "lower95": 0.49, "upper95": 0.51, "verdict": "FASTER"}
    first = {"model": "m.onnx", "ep": "cpu", **TIMING, "speedup": None}
    engine.result = {"measurements": [first, {**first, "model": "n.onnx", "speedup": speedup}]}
    assert main(["bench", "m.onnx", "c.npz", "--threads", "1"]) == 0
    assert engine.request["models"] == ["m.onnx", "c.npz"]
    assert "0.500x (0.490 to 0.510) FASTER" in capsys.readouterr().out
    engine.result = {"metric": "relative output error", "outputs": {"y": 0.01}, "value": 0.01, "synthetic_data": False}
    assert main(["compare", "m.onnx", "c.npz", "--calib-data", "c.npz"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["worst", "0.01"]
