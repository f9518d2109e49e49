"""`onnxprune advise`: what it asks for, its text and its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxprune.cli import advice_text, main, supervise

ROW = {"rule": "r", "says": "something long " * 12, "because": "reasons", "source": "docs/x.md", "gives": "--option"}
RESULT: dict[str, Any] = {
    "schema_version": 1,
    "model": {
        "family": "CNN",
        "quantized": False,
        "macs": 1_000_000,
        "params": 2000,
        "macs_by_operator": {"product": 0.1, "convolution": 0.9},
        "input_shapes": {"x": [1, 3]},
        "latency_ms": 1.5,
        "lossless": 0.9,
    },
    "host": {"cpu": "a cpu", "instructions": ["AVX2"], "fast_int8": False, "ep": ["cpu"], "threads": 2},
    "data": {"given": False, "samples": 64},
    "target": {"text": "0.95x", "ratio": 0.95, "met_already": True},
    "tried": [ROW],
    "cost": {
        "stages": [{"stage": "compensating", "seconds": [10.0, 30.0]}, {"stage": "proving", "seconds": [0.1, 0.2]}],
        "seconds": {"fast": [5.0, 9.0], "normal": [10.1, 30.2]},
    },
    "cannot": [],
    "help": [{**ROW, "because": "", "gives": "", "says": "line\nbreaks \x1b[1m"}],
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the working process was asked for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"model")
    request: dict[str, Any] = {}

    def run(task: str, given: dict[str, Any], **_: Any) -> dict[str, Any]:
        request.update(given, task=task)
        return RESULT

    monkeypatch.setattr(supervise, "run", run)
    return request


def test_it_asks_for_what_a_compression_would(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--target-latency", "0.5x", "--threads", "2", "--input-shape", "x:1,3", "--freeze-initializers"]
    assert main(["advise", "m.onnx", "--format", "json", *given]) == 0
    assert json.loads(capsys.readouterr().out) == RESULT
    assert asked["task"] == "onnxprune.cli.tasks:advise"
    options = asked["options"]
    assert (options["target_latency"], options["threads"], options["input_shapes"]) == ("0.5x", 2, {"x": [1, 3]})
    assert options["freeze_initializers"] and options["eps"] == ["cpu"] and options["calib_data"] is None


@pytest.mark.usefixtures("asked")
def test_the_text_fits_its_width_and_says_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "m.onnx"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("m.onnx: CNN, 1 M MACs (90% convolution, 10% product), 2 K parameters\n")
    assert "here: 1.5 ms at x 1x3, cpu, 2 threads; the lossless passes alone: 0.90x\n" in text
    assert "0.95x is met by the lossless passes alone" in text and "[docs/x.md]" in text
    assert "10s to 30s" in text and "5.0s to 9.0s with --effort fast" in text
    assert "Cannot be had" not in text and "- line breaks \\x1b[1m" in text
    for width in (40, 70, 110):
        assert max(len(line) for line in advice_text.lines(RESULT, "m.onnx", width)) <= width


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no.onnx"], "does not exist"),
        (["m.onnx", "--target-latency", "2x"], "under 1x"),
        (["m.onnx", "--ep", "z"], "z"),
    ],
)
@pytest.mark.usefixtures("asked")
def test_wrong_usage_is_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and word in said
