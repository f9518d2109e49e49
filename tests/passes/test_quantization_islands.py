"""Float islands between 8-bit nodes: activations written with 8-bit operators, scales renamed, GELU left whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as nh
import onnxruntime as ort
import pytest

from onnxprune import ir
from onnxprune.stats import Feeds, model_drift
from passes.quantization import Scheme, quantize

RAW = Scheme(refine=False)


def build(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[object]) -> ir.Model:
    graph = oh.make_graph(
        nodes,
        "net",
        [oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [oh.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [nh.from_array(value, name) for name, value in weights.items()],
    )
    return ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8))


def normal(seed: int, *shape: int) -> np.ndarray:
    scale = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def feeds(model: ir.Model, *shape: int) -> Feeds:
    return Feeds.from_arrays({"x": np.random.default_rng(9).standard_normal(shape).astype(np.float32)}, model)


def kernels(model: ir.Model, tmp_path: Path) -> list[str]:
    """Operators that ONNX Runtime executes."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
    options.log_severity_level = 4
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(f"{tmp_path}/optimised.onnx").graph.node]


def hard_swish(form: str) -> list[onnx.NodeProto]:
    if form == "HardSwish":
        return [oh.make_node("HardSwish", ["c"], ["h"])]
    if form == "HardSigmoid":
        gate = oh.make_node("HardSigmoid", ["c"], ["g"], alpha=1 / 6, beta=0.5)
        return [gate, oh.make_node("Mul", ["c", "g"], ["h"])]
    return [
        oh.make_node("Add", ["c", "three"], ["s"]),
        oh.make_node("Clip", ["s", "zero", "six"], ["g"]),
        oh.make_node("Mul", ["c", "g"], ["p"]),
        oh.make_node("Div", ["p", "six"], ["h"]),
    ]


@pytest.mark.parametrize("form", ["HardSwish", "HardSigmoid", "spelled out"])
def test_hard_swish_runs_in_8_bits(form: str, tmp_path: Path) -> None:
    nodes = [
        oh.make_node("Conv", ["x", "w0", "b0"], ["c"]),
        *hard_swish(form),
        oh.make_node("Conv", ["h", "w1"], ["y"]),
    ]
    weights = {"w0": normal(0, 8, 4, 1, 1) * 4, "b0": normal(1, 8), "w1": normal(2, 8, 8, 1, 1)}
    if form == "spelled out":
        weights |= {"three": np.float32(3), "six": np.float32(6), "zero": np.float32(0)}
    model = build(nodes, weights, ["n", 4, 6, 6])
    data = feeds(model, 32, 4, 6, 6)
    quantized = quantize(model, data, RAW)
    found = kernels(quantized, tmp_path)
    assert (found.count("QLinearConv"), found.count("QLinearAdd"), found.count("QLinearMul")) == (2, 1, 1)
    assert (found.count("QuantizeLinear"), found.count("DequantizeLinear")) == (1, 1)
    assert not {"HardSwish", "HardSigmoid", "Clip", "Div", "Mul", "Add"} & set(found)
    assert max(model_drift(model, quantized, data).values()) < 0.03


def test_a_gelu_between_8_bit_products_stays_whole(tmp_path: Path) -> None:
    nodes = [
        oh.make_node("MatMul", ["x", "w0"], ["m"]),
        oh.make_node("Add", ["m", "b0"], ["a"]),
        oh.make_node("Div", ["a", "root"], ["d"]),
        oh.make_node("Erf", ["d"], ["e"]),
        oh.make_node("Add", ["e", "one"], ["o"]),
        oh.make_node("Mul", ["a", "o"], ["p"]),
        oh.make_node("Mul", ["p", "half"], ["g"]),
        oh.make_node("MatMul", ["g", "w1"], ["y"]),
    ]
    weights = {"w0": normal(0, 16, 32), "b0": normal(1, 32), "w1": normal(2, 32, 16)}
    weights |= {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    model = build(nodes, weights, ["n", 5, 16])
    data = feeds(model, 32, 5, 16)
    found = kernels(quantize(model, data, RAW), tmp_path)
    assert found.count("MatMulIntegerToFloat") == 2
    assert {"BiasGelu", "Gelu"} & set(found)
    assert not {"Erf", "QLinearMul", "DequantizeLinear"} & set(found)
