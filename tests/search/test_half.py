"""Half precision in the search: chosen where it is measured faster, priced without conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune import ir
from onnxprune.search.pricing import scheme_name, without_borders
from onnxprune.search.schemes import scheme_options
from onnxprune.search.workspace import Workspace
from passes.quantization import Scheme, fake_quantize_for_latency

Residual = Callable[..., ir.Model]
HALF = Scheme(kind="float16")
FACTOR = 0.55


@pytest.fixture
def half_machine(monkeypatch: pytest.MonkeyPatch, formula_machine: None) -> None:
    """The formula machine, on which half precision takes 0.55 of single precision and 8 bits bring nothing."""
    plain = ir.macs

    def macs(model: ir.Model, shapes: object) -> float:
        halved = any(tensor.dtype == np.float16 for tensor in ir.initializers(model).values())
        return plain(model, shapes) * (FACTOR if halved else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr("onnxprune.ir.macs", macs)


def test_a_provider_that_likes_half_precision_gets_it(half_machine: None, models: Path, calibration: Path) -> None:
    result = onnxprune.compress(
        models / "digits_resnet.onnx",
        target_latency="0.5x",
        calib_data=calibration,
        precision=["fp32", "fp16"],
        effort="fast",
    )
    assert result.report["scheme"] == "float16" and result.report["met"]
    weights = ir.initializers(ir.from_proto(result.model)).values()
    assert any(tensor.dtype == np.float16 for tensor in weights)
    image = np.load(calibration)["image"][:4]
    session = ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"image": image})
    assert outputs.dtype == np.float32 and outputs.shape == (4, 10)


def test_only_what_the_user_allows(residual: Residual, workspace: Callable[..., Workspace]) -> None:
    work = workspace(residual(blocks=1))

    def schemes(*precisions: str) -> list[str]:
        work.options = replace(work.options, precisions=precisions)
        return [scheme_name(option.scheme) for option in scheme_options(work)]

    assert schemes("fp32") == ["float"]
    work.ratios = lambda path, seconds=0.8: (0.5 if is_half(path) else 1.0,)  # type: ignore[method-assign]
    assert schemes("fp32", "fp16") == ["float", "float16"]
    assert schemes("fp16") == ["float16"]
    assert schemes("fp32", "int8") == ["float"]


def is_half(path: Path) -> bool:
    return any(tensor.dtype == np.float16 for tensor in ir.initializers(ir.load(path)).values())


def test_what_overflows_is_no_choice(residual: Residual, workspace: Callable[..., Workspace]) -> None:
    model = residual(blocks=1)
    stem = ir.initializers(model)["stem.b"]
    stem.values = stem.values + np.float32(1e5)
    head = ir.initializers(model)["head.w"]
    head.values = head.values * np.float32(1e5)
    work = workspace(model)
    work.options = replace(work.options, precisions=("fp32", "fp16"))
    work.ratios = lambda path, seconds=0.8: (0.5,)  # type: ignore[method-assign]
    assert [scheme_name(option.scheme) for option in scheme_options(work)] == ["float"]


def test_between_clusters_tensors_are_in_half_precision(residual: Residual) -> None:
    whole = ir.to_proto(fake_quantize_for_latency(residual(blocks=1), HALF))
    before = onnx.ModelProto()
    before.CopyFrom(whole)
    bare = without_borders(whole)
    onnx.checker.check_model(bare, full_check=True)
    assert not any(node.op_type == "Cast" for node in bare.graph.node)
    borders = [*bare.graph.input, *bare.graph.output]
    assert {border.type.tensor_type.elem_type for border in borders} == {onnx.TensorProto.FLOAT16}
    old, new = (ort.InferenceSession(p.SerializeToString(), providers=["CPUExecutionProvider"]) for p in (before, bare))
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (expected,) = old.run(None, {"x": x})
    (found,) = new.run(None, {bare.graph.input[0].name: x.astype(np.float16)})
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=1e-3, atol=1e-3)


def test_casts_of_the_model_itself_stay() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, int64[2] k) => (float[2] y, float[2] z)
        { h = Cast <to = 10> (x)
          r = Relu (h)
          y = Cast <to = 1> (r)
          i = Cast <to = 10> (k)
          n = Neg (i)
          z = Cast <to = 1> (n) }""")
    bare = without_borders(proto)
    assert [node.op_type for node in bare.graph.node] == ["Relu", "Cast", "Neg"]
    assert [value.name for value in bare.graph.input] == ["h", "k"]
    assert [value.name for value in bare.graph.output] == ["r", "n"]
