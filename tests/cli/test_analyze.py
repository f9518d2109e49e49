"""`onnxprune analyze`: what it asks for, its tables, its JSON, and its drawing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxprune.cli import main, supervise, tables
from onnxprune.cli.fitting import fitted
from onnxprune.progress import aligned

GROUP = {
    "name": "w:0",
    "kind": "channel",
    "width": 16,
    "elements": 64,
    "producers": ["w:0"],
    "consumers": ["a:1"] * 5,
    "exact": True,
    "min_keep": 1,
    "multiple_of": 1,
    "share": {"macs": 0.5, "params": 0.25},
    "units": {"w:0": None},
}
RESULT: dict[str, Any] = {
    "schema_version": 1,
    "view": "groups",
    "model": {"nodes": 3, "params": 100, "macs": 1000, "input_shapes": {"x": [1, 3]}},
    "prunable": {"macs": 0.9, "params": 0.8},
    "least": {"macs": 0.05, "params": 0.1},
    "nothing": None,
    "groups": [GROUP],
    "frozen": [
        {"reason": "graph output y", "share": {"macs": 0.05, "params": 0.1}, "axes": 2, "nodes": 0, "example": "y:1"},
        {"reason": "no channel", "share": {"macs": 0.0, "params": 0.0001}, "axes": 0, "nodes": 0, "example": "c"},
        {"reason": "no rule for Odd", "share": {"macs": 0.0, "params": 0.0}, "axes": 1, "nodes": 7, "example": "o:0"},
    ],
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the working process was asked for; it draws where it is told to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"model")
    request: dict[str, Any] = {}

    def run(task: str, given: dict[str, Any], **_: Any) -> dict[str, Any]:
        request.update(given)
        if given["dot"]:
            Path(given["dot"]).write_text("digraph {}")
        return RESULT if given["view"] == "groups" else {"view": given["view"], "lines": ["y:1 is a graph output"]}

    monkeypatch.setattr(supervise, "run", run)
    return request


@pytest.mark.usefixtures("asked")
def test_groups_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "m.onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split(maxsplit=8) == [
        "w:0",
        "channel",
        "16",
        "64",
        "50.0%",
        "25.0%",
        "yes",
        "w:0",
        "a:1, a:1, a:1 and 2 more",
    ]
    assert lines[2] == "1 groups with 16 units can be pruned: 90.0% of the MACs and 80.0% of the parameters (x 1x3)"
    assert [line.split("  ")[0] for line in lines[3:]] == ["frozen because", "graph output y", "no rule for Odd"]
    assert main(["analyze", "m.onnx", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == RESULT


def test_a_model_where_nothing_is_prunable(capsys: pytest.CaptureFixture[str]) -> None:
    none = {"macs": None, "params": None}
    frozen = {**RESULT["frozen"][2], "share": none}
    tables.show_analysis({**RESULT, "groups": [], "prunable": none, "nothing": "no rule for Odd", "frozen": [frozen]})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "nothing in this model can be pruned: no rule for Odd"
    assert lines[2].split() == ["no", "rule", "for", "Odd", "-", "-", "1", "7", "o:0"]


def test_other_views(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "m.onnx", "--why", "a:b:1", "--input-shape", "x:2,3"]) == 0
    assert (asked["view"], asked["axis"], asked["options"]["input_shapes"]) == ("why", ["a:b", 1], {"x": [2, 3]})
    assert capsys.readouterr().out == "y:1 is a graph output\n"
    assert main(["analyze", "m.onnx", "--rules"]) == 0
    assert asked["view"] == "rules"


@pytest.mark.usefixtures("asked")
def test_a_drawing_is_an_output_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "m.onnx", "--dot", "g.dot"]) == 0
    assert (tmp_path / "g.dot").read_text() == "digraph {}"
    assert main(["analyze", "m.onnx", "--dot", "g.dot"]) == 2
    assert "exists; choose another path or add --overwrite" in capsys.readouterr().err
    assert main(["analyze", "m.onnx", "--dot", "g.dot", "--overwrite"]) == 0
    assert main(["analyze", "m.onnx", "--dot", "m.onnx", "--overwrite"]) == 2
    assert main(["analyze", "m.onnx", "--dot", "h.dot", "--rules"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "g.dot"}


@pytest.mark.parametrize("width", [30, 50, 70, 90, 120, 400])
def test_tables_fit_a_terminal(width: int) -> None:
    rows = [
        ("group", "kind", "producers", "consumers"),
        ("conv:0", "channel", "a.weight:0, " * 5, "b.weight:1"),
        ("last:0", "channel", "c.weight:0", "d"),
    ]
    shown = fitted(rows, (2, 3), width)
    assert max(map(len, aligned(shown, (0, 1, 2, 3)))) <= max(width, 15)
    assert [row[:2] for row in shown] == [list(row[:2]) for row in rows]
    assert len({len(row) for row in shown}) == 1
    assert len(shown[0]) == (2 if width == 30 else 4)
    assert ("…" in "".join(shown[1])) == (width in (50, 70))
