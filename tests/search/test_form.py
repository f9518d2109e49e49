"""The form in which models are written: taken where it is measured faster, and then everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxprune import api, ir
from onnxprune.search.form import choose_form
from onnxprune.search.workspace import Workspace

Make = Callable[..., Workspace]
Bench = Callable[..., Any]


@pytest.fixture
def normalised() -> ir.Model:
    """A wide hidden layer with a residual addition and a normalisation behind it, and a head."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 3, 8] x) => (float[N, 3, 4] y)
        <float[8] one = {1, 1, 1, 1, 1, 1, 1, 1}> {
        h = MatMul(x, w)
        r = Relu(h)
        m = MatMul(r, v)
        a = Add(x, m)
        n = LayerNormalization(a, one)
        y = MatMul(n, u)
    }""")
    for name, shape in {"w": (8, 512), "v": (512, 8), "u": (8, 4)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def ops(path: Path) -> list[str]:
    return [node.op for node in ir.load(path).graph.nodes]


@pytest.mark.parametrize(("factors", "taken"), [((0.9, 0.95), True), ((0.9, 1.05), False), ((0.995, 0.9), False)])
def test_it_is_taken_where_it_is_faster_on_every_target(
    normalised: ir.Model, workspace: Make, form_bench: Bench, factors: tuple[float, ...], taken: bool
) -> None:
    work = workspace(normalised, targets=2)
    work.benches = [form_bench(bench.target, factor=f) for bench, f in zip(work.benches, factors, strict=True)]
    choose_form(work)
    assert ("Sum" in ops(work.base_file)) == taken == bool(work.notes)
    assert "Sum" not in [node.op for node in work.base.graph.nodes]


def test_a_model_without_normalisations_is_not_measured(workspace: Make, residual: Callable[..., ir.Model]) -> None:
    work = workspace(residual(blocks=1))
    work.benches = []
    choose_form(work)
    assert not work.spelling


def test_what_is_delivered_has_the_form_that_was_measured(
    normalised: ir.Model, formula_machine: None, form_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("onnxprune.api.compression.Bench", form_bench)  # fresh processes see no difference
    ir.save(normalised, tmp_path / "model.onnx")
    result = api.compress(
        tmp_path / "model.onnx",
        target_latency="0.6x",
        precision=["fp32"],
        threads=1,
        effort="fast",
        max_drift=10.0,
        output=tmp_path / "out.onnx",
    )
    assert "Sum" in ops(tmp_path / "out.onnx")
    assert any(note.startswith("additions before normalisations") for note in result.report["notes"])
