"""Fused operators: shapes that inference gives are those that ONNX Runtime computes; multiply-accumulates by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxprune import ir
from onnxprune.ir import checker

MICROSOFT = "com.microsoft"
Operand = tuple[int, ...] | np.ndarray | None
HEADS = {"num_heads": 3}
LENGTHS = [np.full(2, 4, np.int32), np.array(5, np.int32)]

# op, attributes, inputs (shapes, values, or left out), number of outputs, multiply-accumulates
CASES: dict[str, tuple[str, dict[str, Any], list[Operand], int, int]] = {
    "attention": (
        "Attention",
        {**HEADS, "qkv_hidden_sizes": [12, 12, 15]},
        [(2, 5, 6), (6, 39), (39,)],
        1,
        2 * 5 * 6 * 39 + 2 * 5 * 5 * (12 + 15),
    ),
    "attention with past": (
        "Attention",
        HEADS,
        [(2, 5, 6), (6, 36), (36,), None, (2, 2, 3, 4, 4)],
        2,
        2 * 5 * 6 * 36 + 2 * 5 * 9 * 24,
    ),
    "multi-head": ("MultiHeadAttention", HEADS, [(2, 5, 12), (2, 7, 12), (2, 7, 15)], 1, 2 * 5 * 7 * 27),
    "multi-head over heads": ("MultiHeadAttention", HEADS, [(2, 5, 12), (2, 3, 7, 4), (2, 3, 7, 4)], 1, 2 * 5 * 7 * 24),
    "multi-head with past": (
        "MultiHeadAttention",
        HEADS,
        [(2, 5, 12), (2, 5, 12), (2, 5, 12), None, None, None, (2, 3, 4, 4), (2, 3, 4, 4)],
        3,
        2 * 5 * 9 * 24,
    ),
    "grouped": (
        "GroupQueryAttention",
        {"num_heads": 4, "kv_num_heads": 2},
        [(2, 5, 32), (2, 5, 16), (2, 5, 16), None, None, *LENGTHS],
        1,
        2 * 5 * 5 * 64,
    ),
    "grouped and packed": (
        "GroupQueryAttention",
        {"num_heads": 4, "kv_num_heads": 2},
        [(2, 5, 64), None, None, None, None, *LENGTHS],
        1,
        2 * 5 * 5 * 64,
    ),
    "rotary": ("RotaryEmbedding", {}, [(2, 3, 5, 4), np.zeros((2, 5), np.int64), (9, 2), (9, 2)], 1, 0),
    "skip norm": ("SkipLayerNormalization", {}, [(2, 5, 6), (2, 5, 6), (6,), (6,)], 4, 0),
    "skip RMS norm": ("SkipSimplifiedLayerNormalization", {}, [(2, 5, 6), (2, 5, 6), (6,)], 1, 0),
    "embedding": (
        "EmbedLayerNormalization",
        {},
        [np.zeros((2, 5), np.int32), None, (9, 6), (9, 6), None, (6,), (6,)],
        3,
        0,
    ),
    "matmul": ("FusedMatMul", {}, [(4, 1, 2, 7), (5, 7, 3)], 1, 4 * 5 * 2 * 7 * 3),
    "matmul transA": ("FusedMatMul", {"transA": 1}, [(2, 7, 4), (7, 3)], 1, 2 * 4 * 7 * 3),
    "matmul transBatch": (
        "FusedMatMul",
        {"transA": 1, "transBatchA": 1, "transBatchB": 1},
        [(7, 2, 4), (7, 2, 3)],
        1,
        2 * 4 * 7 * 3,
    ),
    "gemm": ("FusedGemm", {"activation": "Relu", "transB": 1}, [(2, 7), (3, 7)], 1, 2 * 7 * 3),
    "conv": (
        "FusedConv",
        {"activation": "Relu", "group": 2, "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 0, 2]},
        [(1, 4, 9, 9), (6, 2, 3, 3)],
        1,
        4 * 7 * 6 * 2 * 9,
    ),
    "conv SAME": (
        "FusedConv",
        {"activation": "Relu", "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        [(1, 4, 9, 9), (6, 4, 3, 3)],
        1,
        25 * 6 * 36,
    ),
    "few bits": (
        "MatMulNBits",
        {"K": 32, "N": 6, "bits": 4, "block_size": 16},
        [(2, 5, 32), np.zeros((6, 2, 8), np.uint8), (6, 2)],
        1,
        2 * 5 * 32 * 6,
    ),
    "gelu": ("BiasGelu", {}, [(2, 5, 6), (6,)], 1, 0),
}  # fmt: skip


def _model(op: str, attributes: dict[str, Any], inputs: list[Operand], outputs: int, domain: str, opset: int) -> Any:
    infos, feeds, names = [], {}, []
    for place, each in enumerate(inputs):
        names.append("" if each is None else f"i{place}")
        if each is not None:
            array = each if isinstance(each, np.ndarray) else np.ones(each, np.float32)
            feeds[f"i{place}"] = array
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            infos.append(helper.make_tensor_value_info(f"i{place}", kind, array.shape))
    results = [f"o{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    unknown = [None] * len(feeds["i0"].shape)
    kinds = [
        onnx.ValueInfoProto(name=name) if domain else helper.make_tensor_value_info(name, TensorProto.FLOAT, unknown)
        for name in results
    ]
    graph = helper.make_graph([node], "g", infos, kinds)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), feeds


def _computed(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [tuple(values.shape) for values in session.run(None, feeds)]


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_multiply_accumulates(name: str) -> None:
    op, attributes, inputs, outputs, expected = CASES[name]
    proto, feeds = _model(op, attributes, inputs, outputs, MICROSOFT, 17)
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    shapes = [tuple(tensor.shape) for tensor in model.graph.outputs]
    assert shapes == _computed(proto, feeds)
    found = {tensor.name: tuple(tensor.shape) for tensor in (*model.graph.inputs, *model.graph.outputs)}
    assert ir.macs(model, found) == expected


@pytest.mark.parametrize(("op", "outputs"), [("LayerNormalization", 3), ("SimplifiedLayerNormalization", 2)])
@pytest.mark.parametrize("axis", [-1, 1])
def test_operators_that_the_runtime_adds_to_the_standard_domain(op: str, outputs: int, axis: int) -> None:
    inputs: list[Operand] = [(2, 5, 6), (6,) if axis < 0 else (5, 6)]
    proto, feeds = _model(op, {"axis": axis}, inputs, outputs, "", 13)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    checker.check_model(proto, full=True)
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    assert [tuple(tensor.shape) for tensor in model.graph.outputs] == _computed(proto, feeds)


def test_checker_still_refuses_what_nobody_has() -> None:
    proto, _ = _model("Unheard", {}, [(2, 3)], 1, "", 17)
    with pytest.raises(onnx.checker.ValidationError):
        checker.check_model(proto)
    proto, _ = _model("SimplifiedLayerNormalization", {}, [(2, 3), (3,)], 1, "", 17)
    proto.graph.node.append(helper.make_node("Relu", [], ["z"]))
    with pytest.raises(onnx.checker.ValidationError):
        checker.check_model(proto)


def test_checker_reads_files_with_weights_outside(tmp_path) -> None:
    proto, _ = _model("SimplifiedLayerNormalization", {}, [(2, 300), (300,)], 1, "", 17)
    weight = onnx.numpy_helper.from_array(np.ones(300, np.float32), "i1")
    del proto.graph.input[1]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("o0", TensorProto.FLOAT, [2, 300]))
    proto.graph.initializer.append(weight)
    path = tmp_path / "m.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    checker.check_model(path)
    assert ir.validate(path).graph.nodes[0].op == "SimplifiedLayerNormalization"
