"""What a specification of `prune --spec` may say, and what is said about one that it may not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune import channels
from onnxprune.api import specification
from onnxprune.api.analysis import analyze
from onnxprune.cli import main
from onnxprune.errors import DataError, OnnxpruneError, UsageError

FIRST, SECOND = "hidden.1.weight:0", "hidden.3.weight:0"


@pytest.fixture(scope="module")
def graph(models: Path) -> channels.ChannelGraph:
    return analyze(models / "digits_mlp.onnx")


def test_widths_and_units_in_one_file(graph: channels.ChannelGraph, tmp_path: Path) -> None:
    for wanted in ({FIRST: 40, SECOND: [5, 0, 7]}, {"keep": {FIRST: 40, SECOND: [5, 0, 7]}}):
        (tmp_path / "keep.json").write_text(json.dumps(wanted))
        for source in (wanted, tmp_path / "keep.json"):
            found = specification.read(source, graph)
            assert found.widths == {FIRST: 40}
            assert {name: np.flatnonzero(mask).tolist() for name, mask in found.masks.items()} == {SECOND: [0, 5, 7]}


def test_numbers_of_numpy(graph: channels.ChannelGraph) -> None:
    found = specification.read({FIRST: np.int64(40), SECOND: np.arange(64)}, graph)
    assert found.widths == {FIRST: 40} and found.masks[SECOND].sum() == 64


@pytest.mark.parametrize(
    ("units", "said"),
    [
        (0, "a width must be 1 to 192, not 0"),
        (-3, "a width must be 1 to 192, not -3"),
        (193, "a width must be 1 to 192, not 193"),
        (10**30, "a width must be 1 to 192"),
        (True, "give a width, or a list of units between 0 and 191"),
        (96.0, "give a width"),
        (None, "give a width"),
        ("96", "give a width"),
        ({"width": 96}, "give a width"),
        ([], "the number of units must be 1 to 192, not 0"),
        ([0, 192], "unit 192 is not between 0 and 191"),
        ([-1], "unit -1 is not between"),
        ([3, 4, 3], "unit 3 is listed twice"),
        ([1.0], "give a width"),
        ([True, False], "give a width"),
        ([[1]], "give a width"),
        (["a"], "give a width"),
    ],
)
def test_units_that_are_refused(graph: channels.ChannelGraph, units: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"^{FIRST}: {said}"):
        specification.read({FIRST: units}, graph)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[1, 2]", DataError, "a specification is"),
        ("3", DataError, "a specification is"),
        ("null", DataError, "a specification is"),
        ("", DataError, "is not JSON"),
        ('{"keep": 3}', DataError, "a specification is"),
        ('{"keep": {}, "x:0": 3}', DataError, "beside that key stands 'x:0'"),
        (f'{{"{FIRST}": NaN}}', DataError, "NaN is no number of JSON"),
        (f'{{"{FIRST}": [Infinity]}}', DataError, "Infinity is no number"),
        (f'{{"{FIRST}": 3, "{FIRST}": 4}}', DataError, f"names '{FIRST}' twice"),
        ("[" * 100_000, DataError, "is not JSON"),
        ('{"hidden.1.wieght:0": 3}', UsageError, "no group 'hidden.1.wieght:0'; near it are hidden.1.weight:0"),
        ('{"zzz": 3}', UsageError, "no group 'zzz'; `onnxprune analyze` lists"),
        ('{"": 3}', UsageError, "no group ''"),
    ],
)
def test_files_that_are_refused(
    graph: channels.ChannelGraph, tmp_path: Path, text: str, kind: type[OnnxpruneError], said: str
) -> None:
    (tmp_path / "keep.json").write_text(text)
    with pytest.raises(kind, match=said) as caught:
        specification.read(tmp_path / "keep.json", graph)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(graph: channels.ChannelGraph, tmp_path: Path) -> None:
    (tmp_path / "keep.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not JSON"):
        specification.read(tmp_path / "keep.json", graph)
    with pytest.raises(UsageError, match="cannot read the specification"):
        specification.read(tmp_path / "missing.json", graph)


def test_multiples(graph: channels.ChannelGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    four = dataclasses.replace(graph.group(FIRST), multiple_of=4, min_keep=4)
    monkeypatch.setattr(graph, "_by_name", {FIRST: four})
    assert specification.read({FIRST: 96}, graph).widths == {FIRST: 96}
    assert specification.read({FIRST: list(range(192))}, graph).masks[FIRST].all()
    for units, said in (
        (98, "a width must be a multiple of 4, not 98"),
        ([1, 2, 3, 4, 5], "the number of units must be"),
    ):
        with pytest.raises(DataError, match=said):
            specification.read({FIRST: units}, graph)


SCRIPT = """
import json, sys
found = json.load(open(sys.argv[1]))
json.dump({g["name"]: list(range(0, g["width"], 2)) for g in found["groups"]}, open(sys.argv[2], "w"))
"""


def test_a_script_turns_the_analysis_into_a_specification(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, calibration = str(models / "digits_mlp.onnx"), str(models / "digits_calib.npz")
    listed, keep, report = (str(tmp_path / name) for name in ("a.json", "keep.json", "r.json"))
    assert main(["analyze", model, "--format", "json"]) == 0
    Path(listed).write_text(capsys.readouterr().out)
    subprocess.run([sys.executable, "-c", SCRIPT, listed, keep], check=True)
    options = ["--spec", keep, "--calib-data", calibration, "--report", report, "-o", str(tmp_path / "o.onnx")]
    assert main(["prune", model, *options]) == 0
    groups = json.loads(Path(report).read_text())["groups"]
    assert {g["name"]: g["width_after"] for g in groups} == {FIRST: 96, SECOND: 64}
    assert groups[0]["removed"][0]["indices"] == list(range(1, 192, 2))
    Path(keep).write_text("{}")
    assert main(["prune", model, "--spec", keep, "-o", str(tmp_path / "p.onnx")]) == 4
    Path(keep).write_text('{"hidden": 3}')
    assert main(["prune", model, "--spec", keep, "-o", str(tmp_path / "p.onnx")]) == 2
    Path(keep).write_text(f'{{"{FIRST}": 0}}')
    assert main(["prune", model, "--spec", keep, "-o", str(tmp_path / "p.onnx")]) == 3
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in said) == 3
