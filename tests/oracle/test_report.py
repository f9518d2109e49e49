"""A report is enough for an outsider: canonical model, written model and `removed` rows rebuild the proof."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_builder import SeededChooser
from random_graphs import random_feeds, random_model

from onnxprune import canonicalize
from onnxprune.api import prune
from passes.verify_masking import verify


@pytest.mark.parametrize("seed", [0, 5, 38])
@pytest.mark.parametrize("compensate", [False, True])
def test_report_rebuilds_the_proof(seed: int, compensate: bool, tmp_path: Path) -> None:
    model = random_model(SeededChooser(seed), symbolic=False)
    calls = random_feeds(model, np.random.default_rng(0))
    feeds = {name: np.concatenate([array] * 4) for name, array in calls[0].items()}
    target, report = tmp_path / "small.onnx", tmp_path / "report.json"
    prune(model, calib_data=feeds, output=target, report=report, ratio=0.4, compensate=compensate)
    rows = [row for group in json.loads(report.read_text())["groups"] for row in group["removed"]]
    assert rows
    weights = "final" if compensate else "original"
    verdict = verify(canonicalize(model), onnx.load(target), rows, calls, weights=weights)
    assert verdict.ok, verdict
    fewer = [row for row in rows if row["tensor"] != rows[0]["tensor"]]
    assert not verify(canonicalize(model), onnx.load(target), fewer, calls, weights="final").ok
