"""Pipelines of scikit-learn: hidden units are pruned; where there are none, the command says so and writes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

pytest.importorskip("skl2onnx")
from examine import examine
from families_sklearn import FIXED, PRUNABLE
from foreign import Foreign


@pytest.mark.parametrize("family", PRUNABLE, ids=lambda family: family.name)
def test_hidden_units_are_pruned(family: Foreign) -> None:
    found = examine(*family.build())
    assert not found.failure and found.moved, found
    assert found.params[1] == found.params[2] < found.params[0]
    assert found.macs_share >= family.share, found


@pytest.mark.parametrize("family", FIXED, ids=lambda family: family.name)
def test_nothing_is_pruned_and_a_reason_is_given(family: Foreign) -> None:
    found = examine(*family.build())
    assert not found.failure and not found.moved and found.groups == 0
    assert found.macs_share == found.params_share == 0
    if found.params[0]:  # else it has no weights, which is the reason
        assert all(found.frozen) and sum(found.frozen.values()) == pytest.approx(1), found
    assert family.why


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("random forest", "it has no weights"),
        ("boosted regressor", "it has no weights"),
        ("k-means", "graph output scores"),
    ],
)
def test_the_command_refuses_with_a_reason(name: str, reason: str, tmp_path: Path) -> None:
    proto, _ = next(family for family in FIXED if family.name == name).build()
    onnx.save(proto, tmp_path / "model.onnx")
    command = [sys.executable, "-m", "onnxprune", "prune", "model.onnx", "--ratio", "0.3", "-o", "small.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and not (tmp_path / "small.onnx").exists()
    assert done.stderr.startswith("error: nothing in this model can be pruned: ") and reason in done.stderr
