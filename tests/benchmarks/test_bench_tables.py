"""The synthetic models are what they are called, and the tables of latency and scale say what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from latency import control_text, latency_text, ratio_text, starts
from machine_facts import MACHINE
from scale import SIZES, STEPS, exponent, growth, late, steps, table
from scale_models import MODELS

from onnxprune import ir
from onnxprune.canonical import canonicalize_model


@pytest.mark.parametrize("name", MODELS)
def test_synthetic_models_are_valid(name: str) -> None:
    onnx.checker.check_model(MODELS[name](16), full_check=True)


def test_synthetic_models_have_the_size_asked_for() -> None:
    assert len(MODELS["chain"](40).graph.node) == 40
    assert len(MODELS["convolutions"](40).graph.node) == 40
    weights = {weight.name: tuple(weight.dims) for weight in MODELS["hidden"](64).graph.initializer}
    assert weights["a0"] == (8, 64)


def test_canonicalisation_has_work_on_convolutions() -> None:
    base, _ = canonicalize_model(ir.from_proto(MODELS["convolutions"](40)))
    assert sorted({node.op for node in base.graph.nodes}) == ["Conv", "Relu"]


def test_every_step_is_timed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(MODELS["chain"](8), str(path))
    found = steps(path)
    assert tuple(found) == STEPS
    assert all(seconds >= 0 for seconds in found.values())
    assert (tmp_path / "exported.onnx").is_file()


def _scale_row(size: int, seconds: float) -> dict[str, Any]:
    memory = {"analyze_bytes": 1e8, "steps_bytes": 1e8}
    times = {"analyze": seconds, "analyze_cpu": seconds, **dict.fromkeys(STEPS, seconds)}
    return {"case": "chain", "size": size, "groups": 1, **memory, **times}


def test_growth_is_an_exponent() -> None:
    rows = [_scale_row(10, 1.0), _scale_row(20, 2.0), _scale_row(40, 8.0)]
    assert exponent(rows[0], rows[1], "import") == pytest.approx(1.0)
    assert exponent(rows[1], rows[2], "import") == pytest.approx(2.0)
    assert "2.00" in growth(rows)
    assert len(table(rows).splitlines()) == 5


def test_only_sizes_with_a_limit_can_be_late() -> None:
    assert SIZES["chain"][-1] > 10_000
    assert late(_scale_row(10_000, 10.1))
    assert not late(_scale_row(10_000, 9.9))
    assert not late(_scale_row(20_000, 20.0))
    assert late(_scale_row(2000, 2.1))
    assert not late(_scale_row(2000, 1.9))


def test_latency_starts_from_every_model_file_once() -> None:
    found = starts()
    assert "--freeze-initializers" in found["ultraface_rfb320"].options
    assert {"resnet20", "resnet20/model_dynamo", "dtln_denoise/model_1", "dtln_denoise/model_2"} <= set(found)


def test_latency_table_says_why_a_variant_is_missing() -> None:
    ratio = {"ratio": 0.5, "lower95": 0.49, "upper95": None, "verdict": "INCONCLUSIVE"}
    row = {
        "machine": MACHINE,
        "quick": True,
        "latency": {"input": {"p50_ms": 1.0, "p90_ms": 1.1}, "lossless": ratio},
        "reasons": {"dynamic": "nothing to quantize"},
        "certification_seconds": 20.0,
    }
    text = latency_text({"net": row})
    assert "| net | 1.000 | 1.100 | 0.500x (0.490 to ?) | - | - | - | 20 |" in text
    assert "- net, dynamic: nothing to quantize" in text
    assert "--quick" in text
    assert ratio_text(None) == "-"
    assert latency_text({}) == ""


def test_controls_count_wrong_verdicts() -> None:
    row = {"machine": MACHINE, "seed": 0, "ratio": 1.0, "lower95": 0.99, "upper95": 1.01, "seconds": 20.0}
    rows = {"net 0": {**row, "verdict": "INCONCLUSIVE"}, "net 1": {**row, "seed": 1, "verdict": "SLOWER"}}
    text = control_text(rows)
    assert "net against itself 2 times (`onnxprune bench M M`): 1 said FASTER or SLOWER." in text
    assert control_text({}) == ""
