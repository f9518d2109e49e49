"""Explanations by the API: shares at which shapes, and names that canonicalisation took away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.api.analysis import examine, largest_cause
from onnxprune.errors import UsageError

NORMALISED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,H,W] x) => (float[N,5,H,W] y) {
    raw = Conv(x, w1)
    normal = BatchNormalization(raw, scale, bias, mean, variance)
    same = Identity(normal)
    act = Relu(same)
    y = Conv(act, w2)
}"""


def parsed(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    return model


def normalised() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    statistics = {name: rng.uniform(0.5, 1.5, 8).astype(np.float32) for name in ("scale", "bias", "mean", "variance")}
    shapes = {"w1": (8, 3, 1, 1), "w2": (5, 8, 1, 1)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return parsed(NORMALISED, **weights, **statistics)


def test_shapes_to_count_at() -> None:
    found = examine(normalised())
    assert found.input_shapes == {"x": (1, 3, 64, 64)}
    assert found.shares.macs == 64 * 64 * (24 + 40)
    wide = examine(normalised(), input_shapes={"x": [2, 3, 4, 4]})
    assert wide.shares.macs == 2 * 16 * (24 + 40)
    assert wide.shares.prunable == found.shares.prunable
    with pytest.raises(UsageError, match="no input 'z'"):
        _ = examine(normalised(), input_shapes={"z": [1]}).shares


def test_shapes_that_nothing_tells() -> None:
    """What an unknown operator makes has no shape; the parameters are counted all the same."""
    text = """<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
    g (string[N] names, float[N,4] x) => (float[N,2] y, z) {
        h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) z = com.example.Odd(names) }"""
    found = examine(parsed(text, w=np.ones((4, 6), np.float32), v=np.ones((6, 2), np.float32)))
    assert found.input_shapes == {"names": (1,), "x": (1, 4)}
    assert (found.shares.macs, found.shares.params) == (0, 36)
    assert found.shares.prunable.params == pytest.approx(30 / 36)


def test_why_of_activations_and_dynamic_axes() -> None:
    found = examine(normalised())
    assert found.why("act", 1)[0] == "act:1: 8 of 8 in group w1:0 (channel, 8 units)"
    assert found.why("x", 1)[-1] == "graph input x"
    assert found.why("x", 2) == ["x:2 has a dynamic size H that only a run tells: no unit can leave it"]
    with pytest.raises(UsageError, match="x has no axis 4: its shape is Nx3xHxW"):
        found.why("x", 4)


def test_why_of_tensors_that_are_not_in_the_canonical_form() -> None:
    found = examine(normalised())
    for gone in ("raw", "mean", "same"):
        with pytest.raises(UsageError, match=f"{gone} is not in the canonical form") as caught:
            found.why(gone, 0)
        near = str(caught.value).partition("near it are ")[2].split(", ")
        assert near and all(found.why(name, 0) for name in near)
    with pytest.raises(UsageError, match="acr is no tensor of the model; near it are act"):
        found.why("acr", 1)
    with pytest.raises(UsageError, match=r"nothing like it.* is no tensor of the model; --rules lists the nodes"):
        found.why("nothing like it at all", 1)


def test_largest_cause(models: Path) -> None:
    frozen = examine(models / "digits_mlp.onnx", freeze="^hidden")
    assert largest_cause(frozen.shares).startswith("frozen by name: hidden")
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"""
    assert largest_cause(examine(parsed(text)).shares) == "it has no weights"
    odd = """<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
    g (float[N,4] x) => (float[N,4] y) { y = com.example.Odd(x) }"""
    assert largest_cause(examine(parsed(odd)).shares) == "no rule for com.example.Odd; it has no weights"


def test_the_public_function_gives_the_graph(models: Path) -> None:
    assert [group.name for group in onnxprune.analyze(models / "digits_mlp.onnx").groups]
