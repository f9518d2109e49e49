"""The models that the onnx package carries: analysis says something about each of them, and crashes on none."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from onnxprune import canonicalize, channels, ir
from onnxprune.errors import ModelError

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def analyzed(model: ir.Model) -> channels.ChannelGraph:
    """The channel graph, in which everything frozen has a reason."""
    ir.infer_shapes(model)
    graph = channels.analyze(model)
    assert all(frozen.reason and frozen.chain for frozen in graph.frozen)
    return graph


def test_analysis_crashes_on_no_node_test() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in collect_testcases(None) if case.model is not None]
    refused = []
    for case in cases:
        try:
            analyzed(ir.from_proto(case.model))
        except ModelError:  # shapes that inference itself calls contradictory
            refused.append(case.name)
    assert len(cases) > 1800
    assert not refused


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models_have_groups(path: Path) -> None:
    assert analyzed(ir.from_proto(canonicalize(path))).groups
