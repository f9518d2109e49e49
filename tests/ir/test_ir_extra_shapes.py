"""Shapes of operators without ONNX inference, and of everything behind them, against what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import channels, ir
from onnxprune.ir.extra_shapes import EXTRA_SHAPES

ML = "ai.onnx.ml"
FOUR = {"nodes_treeids": [0], "nodes_nodeids": [0], "nodes_featureids": [0], "nodes_values": [0.0]}
TREE = {**FOUR, "nodes_modes": ["LEAF"], "nodes_truenodeids": [0], "nodes_falsenodeids": [0]}
CASES = {
    "Scaler": ({"offset": [0.5], "scale": [2.0]}, 1),
    "Normalizer": ({"norm": "L2"}, 1),
    "Imputer": ({"imputed_value_floats": [0.0], "replaced_value_float": -1.0}, 1),
    "FeatureVectorizer": ({"inputdimensions": [4]}, 1),
    "LinearRegressor": ({"coefficients": [0.5] * 8, "intercepts": [0.0, 1.0], "targets": 2}, 1),
    "SVMRegressor": (
        {
            "coefficients": [1.0] * 4,
            "rho": [0.0],
            "kernel_type": "LINEAR",
            "kernel_params": [0.0, 0.0, 0.0],
            "n_supports": 0,
            "post_transform": "NONE",
        },
        1,
    ),
    "TreeEnsembleRegressor": (
        {
            **TREE,
            "n_targets": 3,
            "target_treeids": [0],
            "target_nodeids": [0],
            "target_ids": [1],
            "target_weights": [2.0],
        },
        1,
    ),
    "TreeEnsembleClassifier": (
        {
            **TREE,
            "class_treeids": [0] * 3,
            "class_nodeids": [0] * 3,
            "class_ids": [0, 1, 2],
            "class_weights": [0.2, 0.3, 0.5],
            "classlabels_int64s": [0, 1, 2],
        },
        2,
    ),
}


def model_of(nodes: list[onnx.NodeProto], outputs: list[str], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def ran(proto: onnx.ModelProto, rows: int) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": np.ones((rows, 4), np.float32)}))


def test_every_ml_operator_of_the_table_has_a_case() -> None:
    assert {op for domain, op in EXTRA_SHAPES if domain == ML} == {*CASES, "LabelEncoder"}


@pytest.mark.parametrize(
    ("version", "attributes"),
    [
        (1, {"classes_strings": ["a", "b"], "default_string": "z"}),
        (2, {"keys_int64s": [0, 1], "values_int64s": [5, 6]}),
        (2, {"keys_int64s": [0, 1], "values_floats": [0.5, 1.5]}),
        (2, {"keys_int64s": [0, 1], "values_strings": ["a", "b"]}),
    ],
)
def test_label_encoder(version: int, attributes: dict[str, Any]) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1),
        helper.make_node("LabelEncoder", ["best"], ["y"], domain=ML, **attributes),
    ]
    proto = model_of(nodes, ["y"], {})
    proto.opset_import[1].version = version
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    assert model.graph.outputs[0].shape == ["n", 1]
    assert model.graph.outputs[0].dtype == ran(proto, 3)[0].dtype


@pytest.mark.parametrize("op", CASES)
def test_shape_is_what_the_runtime_computes(op: str) -> None:
    attributes, count = CASES[op]
    names = [f"y{k}" for k in range(count)]
    proto = model_of([helper.make_node(op, ["x"], names, domain=ML, **attributes)], names, {})
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    for rows in (1, 5):
        for tensor, value in zip(model.graph.outputs, ran(proto, rows), strict=True):
            assert [rows if dim == "n" else dim for dim in tensor.shape] == list(value.shape)
            assert tensor.dtype == value.dtype


def test_string_labels() -> None:
    attributes = {**CASES["TreeEnsembleClassifier"][0], "classlabels_strings": ["a", "b", "c"]}
    attributes.pop("classlabels_int64s")
    node = helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "scores"], domain=ML, **attributes)
    proto = model_of([node], ["label", "scores"], {})
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    assert [tensor.shape for tensor in model.graph.outputs] == [["n"], ["n", 3]]
    assert ran(proto, 2)[0].tolist() == ["c", "c"]
    assert ir.to_proto(model).graph.output[0].type.tensor_type.elem_type == TensorProto.STRING


def test_inference_goes_on_behind_each_of_several() -> None:
    """Two operators of the table with products between them, and a capture by a subgraph behind the second."""
    body = helper.make_graph(
        [helper.make_node("Add", ["b", "h"], ["inner"])], "body", [], [onnx.ValueInfoProto(name="inner")]
    )
    nodes = [
        helper.make_node("Normalizer", ["x"], ["a"], domain=ML, norm="L1"),
        helper.make_node("MatMul", ["a", "w"], ["h"]),
        helper.make_node("Scaler", ["h"], ["b"], domain=ML, offset=[0.0], scale=[1.0]),
        helper.make_node("If", ["yes"], ["c"], then_branch=body, else_branch=body),
        helper.make_node("Concat", ["c", "x"], ["y"], axis=1),
    ]
    weights = {"w": np.ones((4, 1500), np.float32), "yes": np.array(True)}
    proto = model_of(nodes, ["y"], weights)
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    found = {name: tensor.shape for name, tensor in ir.tensors(model).items()}
    assert (found["a"], found["h"], found["b"]) == (["n", 4], ["n", 1500], ["n", 1500])
    assert found["y"] == ["n", 1504]
    assert ran(proto, 3)[0].shape == (3, 1504)


def test_hidden_units_behind_a_scaler_can_be_pruned() -> None:
    nodes = [
        helper.make_node("Scaler", ["x"], ["a"], domain=ML, offset=[0.5] * 4, scale=[2.0] * 4),
        helper.make_node("MatMul", ["a", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    proto = model_of(nodes, ["y"], {"w": np.ones((4, 6), np.float32), "v": np.ones((6, 2), np.float32)})
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    assert [group.width for group in channels.analyze(model).groups] == [6]
