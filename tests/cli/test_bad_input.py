"""Bad input is one line on stderr, the right exit code, and nothing written, before any work starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxprune.cli import main, params, supervise


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model file, data, an output that exists, links to the model; no command may start its work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"not looked at")
    (tmp_path / "calib.npz").write_bytes(b"not looked at")
    (tmp_path / "old.onnx").write_bytes(b"old")
    (tmp_path / "front-2.onnx").write_bytes(b"old")
    (tmp_path / "bad.toml").write_text("target_latency = \n")
    (tmp_path / "unknown.toml").write_text('speed = "9x"\n')
    (tmp_path / "value.toml").write_text('target_latency = "5"\n')
    (tmp_path / "type.toml").write_text("overwrite = 3\n")
    (tmp_path / "soft.onnx").symlink_to("m.onnx")
    os.link(tmp_path / "m.onnx", tmp_path / "hard.onnx")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(supervise, "run", unexpected)
    return tmp_path


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


CASES = [
    ("", "no model given"),
    ("m.onnx", "no target"),
    ("m.onnx --eval-data calib.npz --labels y --metric top1", "no target"),
    ("m.onnx --target-size 5", "no unit"),
    ("m.onnx --target-size 5ms", "unknown unit"),
    ("m.onnx --target-macs 3x", "under 1x"),
    ("m.onnx --pareto 1", "--pareto"),
    ("m.onnx --pareto 3 --target-size 1MB", "--pareto and --target-size exclude each other"),
    ("m.onnx --pareto 3 -o front.onnx", "model 2 front-2.onnx exists"),
    ("m.onnx --pipeline constant-folding --target-macs 0.5x", "--pipeline and --target-macs exclude each other"),
    ("m.onnx --max-drift 0.1 --best-effort", "--best-effort does nothing"),
    ("m.onnx --target-latency 5ms --effort huge", "--effort"),
    ("gone.onnx --target-latency 5ms", "does not exist"),
    ("m.onnx/x --target-latency 5ms", "does not exist"),
    ("folder --target-latency 5ms", "is a directory"),
    ("pipe --target-latency 5ms", "not a regular file"),
    ("m.onnx --target-latency 0", "above zero"),
    ("m.onnx --target-latency -3ms", "above zero"),
    ("m.onnx --target-latency 5", "no unit"),
    ("m.onnx --target-latency nan", "finite"),
    ("m.onnx --target-latency 2x", "under 1x"),
    ("m.onnx --target-latency", "requires an argument"),
    ("m.onnx --target-latency 5ms --max-memory 8", "no unit"),
    ("m.onnx --target-latency 5ms --timeout 0s", "above zero"),
    ("m.onnx --target-latency 5ms --threads 0", "--threads"),
    ("m.onnx --target-latency 5ms --latency-table m.onnx", "the same file as m.onnx"),
    ("m.onnx --target-latency 5ms --latency-table soft.onnx", "the same file as m.onnx"),
    ("m.onnx --target-latency 5ms -o new.onnx --latency-table new.onnx", "the same file as new.onnx"),
    ("m.onnx --target-latency 5ms --latency-table folder", "is a directory"),
    ("m.onnx --target-latency 5ms --latency-table pipe", "not a regular file"),
    ("m.onnx --target-latency 5ms --latency-table gone/t.json", "does not exist"),
    ("m.onnx --target-latency 5ms --batch x", "--batch"),
    ("m.onnx --target-latency 5ms --input-shape 1,3", "NAME:SIZE"),
    ("m.onnx --target-latency 5ms --ep gpux", "cpu"),
    ("m.onnx --target-latency 5ms --ep-option K", "NAME=VALUE"),
    ("m.onnx --target-latency 5ms --precision fp64", "fp32"),
    ("m.onnx --target-latency 5ms --freeze (", "regular expression"),
    ("m.onnx --target-latency 5ms --max-drop 1", "needs a metric"),
    ("m.onnx --target-latency 5ms --max-drop nan", "--max-drop"),
    ("m.onnx --target-latency 5ms --max-drift nan", "--max-drift"),
    ("m.onnx --target-latency 5ms --eval nothing", "FILE.py:FUNC"),
    ("m.onnx --target-latency 5ms --eval gone.py:f", "does not exist"),
    ("m.onnx --target-latency 5ms --eval-data calib.npz", "--labels"),
    ("m.onnx --target-latency 5ms --labels y", "--eval-data"),
    ("m.onnx --target-latency 5ms --calib-data gone.npz", "does not exist"),
    ("m.onnx --target-latency 5ms -o old.onnx", "--overwrite"),
    ("m.onnx --target-latency 5ms -o m.onnx", "is read"),
    ("m.onnx --target-latency 5ms -o ./folder/../m.onnx --overwrite", "is read"),
    ("m.onnx --target-latency 5ms -o soft.onnx --overwrite", "is read"),
    ("m.onnx --target-latency 5ms -o hard.onnx --overwrite", "is read"),
    ("m.onnx --target-latency 5ms --calib-data calib.npz -o calib.npz --overwrite", "is read"),
    ("m.onnx --target-latency 5ms -o folder", "is a directory"),
    ("m.onnx --target-latency 5ms -o pipe --overwrite", "not a regular file"),
    ("m.onnx --target-latency 5ms -o gone/x.onnx", "create it first"),
    ("m.onnx --target-latency 5ms -o m.onnx/x.onnx", "create it first"),
    ("m.onnx --target-latency 5ms --report old.onnx", "--overwrite"),
    ("m.onnx --target-latency 5ms --report m.onnx --overwrite", "is read"),
    ("m.onnx --target-latency 5ms -o a --report a", "same file"),
    ("m.onnx --target-latency 5ms --html old.onnx", "--overwrite"),
    ("m.onnx --target-latency 5ms --html m.onnx --overwrite", "is read"),
    ("m.onnx --target-latency 5ms --report a --html a", "same file"),
    ("m.onnx --target-latency 5ms -o a --dump-ir folder/../a", "same file"),
    ("m.onnx --target-latency 5ms -q -v", "exclude"),
    ("m.onnx --target-latency 5ms --config gone.toml", "does not exist"),
    ("m.onnx --target-latency 5ms --config bad.toml", "not TOML"),
    ("m.onnx --target-latency 5ms --config unknown.toml", "not an option"),
    ("m.onnx --config value.toml", "no unit"),
    ("m.onnx --target-latency 5ms --config type.toml", "true or false"),
    ("m.onnx --target-latency 5ms --nonsense", "No such option"),
    ("m.onnx other.onnx --target-latency 5ms", "unexpected extra argument"),
    ("prune m.onnx", "exactly one"),
    ("prune m.onnx --ratio 0.5 --macs 0.5x", "exactly one"),
    ("prune m.onnx --ratio 1", "--ratio"),
    ("prune m.onnx --ratio -0.1", "--ratio"),
    ("prune m.onnx --ratio nan", "--ratio"),
    ("prune m.onnx --macs 0.5", "no unit"),
    ("prune m.onnx --macs 1.5x", "under 1x"),
    ("prune m.onnx --spec gone.json", "does not exist"),
    ("prune m.onnx --ratio 0.5 --criterion best", "--criterion"),
    ("analyze gone.onnx", "does not exist"),
    ("analyze m.onnx --why conv", "TENSOR:AXIS"),
    ("analyze m.onnx --why conv:-1", "TENSOR:AXIS"),
    ("analyze", "Missing argument"),
    ("bench gone.onnx", "does not exist"),
    ("bench m.onnx gone.onnx", "does not exist"),
    ("bench m.onnx --ep gpux", "cpu"),
    ("compare m.onnx gone.onnx", "does not exist"),
    ("compare m.onnx", "Missing argument"),
]


@pytest.mark.parametrize(("command", "said"), CASES, ids=[case[0] for case in CASES])
def test_one_line_exit_2_and_nothing_written(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    before = listing(here)
    code = main(command.split())
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert said in err
    assert listing(here) == before


def test_a_debug_run_shows_the_traceback_before_the_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gone.onnx", "--target-latency", "5ms", "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: model gone.onnx does not exist; check the path"


def test_precisions_are_those_of_the_search() -> None:
    from onnxprune.search.options import PRECISIONS

    assert params.PRECISIONS == PRECISIONS


def test_efforts_are_those_of_the_search() -> None:
    from onnxprune.search.effort import EFFORTS

    assert tuple(EFFORTS) == params.EFFORTS


def test_names_cannot_steer_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gone\x1b[2J\n.onnx", "--target-latency", "5ms"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_a_null_byte_is_no_path(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["m.onnx", "--target-latency", "5ms", "-o", "a\0b"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_a_file_system_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "folder").chmod(0o500)
    assert main(["m.onnx", "--target-latency", "5ms", "-o", "folder/x.onnx"]) == 8
    assert "cannot be written to" in capsys.readouterr().err
