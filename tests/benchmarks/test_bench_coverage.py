"""The table of coverage says what an examination found, and fails where something does not hold."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "coverage.py"
spec = importlib.util.spec_from_file_location("coverage_table", SCRIPT)  # a package of the name measures test coverage
assert spec is not None and spec.loader is not None
bench = sys.modules["coverage_table"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
FOUND: dict[str, Any] = {
    "nodes": 10, "groups": 3, "macs_share": 0.945, "params_share": 0.99, "frozen": {"graph input x": 0.05},
    "error": 0.01, "failure": "", "moved": True, "params": (100, 60, 60),
}  # fmt: skip
ROW = bench.Row("VGG", "dynamo", 10, 3, 0.945, 0.99, {"graph input x": 0.05}, 0.01, 1.26)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, ""),
        ({"failure": "y: outputs differ"}, "y: outputs differ"),
        ({"params": (100, 61, 60)}, "61 parameters are left, 60 were predicted"),
        ({"macs_share": 0.8}, "0.800 of the MACs are prunable, 0.9 are promised"),
        ({"moved": False}, "pruning moves no output: the weights are dead"),
        ({"moved": False, "groups": 0}, ""),
    ],
)
def test_what_does_not_hold_is_said(changes: dict[str, Any], failed: str) -> None:
    found: Any = SimpleNamespace(**FOUND | changes)
    assert bench.row_of("VGG", "dynamo", found, 0.9, 0.0).failed == failed


def test_a_line_a_row() -> None:
    text = bench.table("family", [ROW, replace(ROW, failed="y: outputs differ")])
    head, _, one, two = text.splitlines()
    assert head == f"| family | {' | '.join(bench.HEAD)} |"
    assert one == "| VGG | dynamo | 10 | 3 | 94.5% | 99.0% | graph input x 5.0% | 0.01 | 1.3 |"
    assert "| **y: outputs differ** |" in two


def test_reasons_are_few_and_short() -> None:
    long = "a" * (bench.LONGEST + 1)
    text = bench.reasons_text({long: 0.2, "b": 0.1, "c": 0.05, "d": 0.04, "e": 0.001})
    assert text == f"{bench.shortened(long)} 20.0%; b 10.0%; c 5.0%"
    assert len(bench.shortened(long)) == bench.LONGEST
    assert bench.reasons_text({"graph output y": 0.001}) == ""
    assert bench.reasons_text({"no rule for F": 0.0, "no rule for G": 0.0}) == "no rule for F; no rule for G"


def test_the_summary_counts_names_and_rows() -> None:
    rows = [ROW, replace(ROW, exporter="torchscript", macs=0.4), replace(ROW, name="b", failed="wrong")]
    assert bench.summary(rows) == ("2 names in 3 rows; 2 hold; in 2 of them at least 90 % of the MACs are prunable.")


@pytest.mark.torch
def test_the_script_examines_what_is_asked_for() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("skl2onnx")
    script = [sys.executable, str(SCRIPT), "--exporter", "Darknet"]
    environment = {key: value for key, value in os.environ.items() if key != "ONNXPRUNE_ZOO"}
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| YOLOv3 | Darknet | " in done.stdout
    assert done.stdout.rstrip().endswith(
        "1 names in 1 rows; 1 hold; in 1 of them at least 90 % of the MACs are prunable."
    )
