"""Shapes and multiply-accumulates against what ONNX Runtime computes and what the zoo states."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError


def true_shapes(proto, feeds):
    """The shape of every tensor that a node makes, by running the whole model with all of them as outputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    named = {info.name for info in proto.graph.output}
    names = [name for node in proto.graph.node for name in node.output if name]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in named)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {name: value.shape for name, value in zip(names, session.run(names, feeds), strict=True)}


def test_symbolic_shapes_become_concrete(small_cnn):
    model = ir.from_proto(small_cnn)
    shapes = ir.shapes_for(model, {"x": (3, 3, 8, 8)})
    assert (
        shapes["c1"] == (3, 8, 8, 8)
        and shapes["y"] == (3, 5)
        and shapes["w1"] == (8, 3, 3, 3)
        and shapes["x"] == (3, 3, 8, 8)
    )
    assert set(shapes) == set(ir.tensors(model))
    assert ir.macs(model, shapes) == 3 * (8 * 64 * 27 + 40)
    assert ir.tensors(model)["x"].shape[0] == "batch", "the model itself is left as it was"


def arithmetic(make_model):
    """Flattens all but the first axis of x through Shape, Gather, Mul, Concat and Reshape, then multiplies."""
    constants = {"one": [1], "two": [2], "minus": [-1], "zero": [0]}
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    weights.append(numpy_helper.from_array(np.ones((4096, 7), np.float32), "w"))
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["d1"]),
        helper.make_node("Gather", ["s", "two"], ["d2"]),
        helper.make_node("Mul", ["d1", "d2"], ["d"]),
        helper.make_node("Concat", ["minus", "d"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "a", "b"])
    return make_model(nodes, [entry], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights)


def test_shape_arithmetic_is_resolved(make_model):
    proto = arithmetic(make_model)
    model = ir.from_proto(proto)
    shapes = ir.shapes_for(model, {"x": (5, 64, 64)})
    assert shapes["r"] == (5, 4096) and shapes["y"] == (5, 7) and shapes["target"] == (2,)
    truth = true_shapes(proto, {"x": np.zeros((5, 64, 64), np.float32)})
    assert {name: shapes[name] for name in truth} == truth


def test_stale_shapes_are_not_trusted(make_model):
    model = ir.from_proto(arithmetic(make_model))
    ir.tensors(model)["r"].dtype, ir.tensors(model)["r"].shape = np.dtype(np.float32), [9, 9]
    assert ir.shapes_for(model, {"x": (5, 64, 64)})["r"] == (5, 4096)


def test_shapes_that_do_not_fit(make_model, small_cnn):
    model = ir.from_proto(small_cnn)
    for shapes in ({"x": (1, 4, 8, 8)}, {"x": (1, 3, 8)}, {"z": (1,)}):
        with pytest.raises(ModelError) as caught:
            ir.shapes_for(model, shapes)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot run"):
        ir.shapes_for(ir.from_proto(arithmetic(make_model)), {"x": (5, 3, 3)})


def test_sequences_have_no_shape(make_model, vector):
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"]),
        helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0),
    ]
    model = ir.from_proto(make_model(nodes, [vector("x", "n")], [vector("y", "n")]))
    shapes = ir.shapes_for(model, {"x": (6,)})
    assert shapes["y"] == (6,) and "parts" not in shapes


def test_inference_fills_types_in_place(small_cnn):
    model = ir.from_proto(small_cnn)
    ir.infer_shapes(model)
    tensor = ir.tensors(model)["f1"]
    assert tensor.dtype == np.float32 and tensor.shape == ["batch", 8]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_inference_replaces_outdated_numbers_and_keeps_names(small_cnn):
    model = ir.from_proto(small_cnn)
    ir.infer_shapes(model)
    for name, axis in (("w1", 0), ("b1", 0), ("w2", 1)):
        weight = ir.initializers(model)[name]
        weight.values = np.delete(weight.values, [0, 1], axis)
    ir.infer_shapes(model)
    assert ir.tensors(model)["r1"].shape == ["batch", 6, 8, 8]
    assert ir.tensors(model)["y"].shape == ["batch", 5]


def test_inference_keeps_what_is_recorded_behind_unknown_operators(make_model, vector):
    nodes = [helper.make_node("Mystery", ["x"], ["t"], domain="acme"), helper.make_node("Relu", ["t"], ["y"])]
    middle = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["n", 4])
    proto = make_model(nodes, [vector("x")], [vector("y")], domains=("acme",), value_info=[middle])
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    assert ir.tensors(model)["t"].shape == ["n", 4] and ir.tensors(model)["y"].shape == [4]
    ir.clear_shapes(model)
    assert ir.tensors(model)["t"].shape is None


CASES = {
    # op, attributes, input shapes, expected multiply-accumulates by hand
    "grouped conv": ("Conv", {"group": 2}, [(2, 4, 5, 5), (6, 2, 3, 3)], 2 * 6 * 9 * 2 * 9),
    "depthwise 1-D": ("Conv", {"group": 4}, [(1, 4, 10), (4, 1, 3)], 4 * 8 * 3),
    "conv transpose": ("ConvTranspose", {"strides": [2, 2]}, [(1, 3, 5, 5), (3, 4, 2, 2)], 3 * 25 * 4 * 4),
    "gemm transA": ("Gemm", {"transA": 1}, [(7, 2), (7, 3)], 7 * 2 * 3),
    "gemm transB": ("Gemm", {"transB": 1}, [(2, 7), (3, 7)], 7 * 2 * 3),
    "batched matmul": ("MatMul", {}, [(4, 1, 2, 7), (5, 7, 3)], 4 * 5 * 2 * 7 * 3),
    "vector matmul": ("MatMul", {}, [(7,), (7, 3)], 7 * 3),
    "einsum heads": ("Einsum", {"equation": "bqhd,bkhd->bhqk"}, [(2, 3, 4, 5), (2, 6, 4, 5)], 2 * 3 * 4 * 5 * 6),
    "einsum dots": ("Einsum", {"equation": "...ij,jk->...ik"}, [(2, 3, 4), (4, 5)], 2 * 3 * 4 * 5),
    "einsum sum": ("Einsum", {"equation": "ij->i"}, [(2, 3)], 0),
    "lstm": ("LSTM", {"hidden_size": 6}, [(5, 2, 3), (1, 24, 3), (1, 24, 6)], 5 * 2 * (24 * 3 + 24 * 6)),
    "gru two ways": (
        "GRU",
        {"hidden_size": 6, "direction": "bidirectional"},
        [(5, 2, 3), (2, 18, 3), (2, 18, 6)],
        5 * 2 * 2 * 18 * 9,
    ),
    "attention": ("Attention", {}, [(2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 6)], 2 * 4 * 3 * 5 * 14),
    "relu": ("Relu", {}, [(2, 3)], 0),
}


@pytest.mark.parametrize("name", CASES)
def test_multiply_accumulates(name, make_model):
    op, attributes, inputs, expected = CASES[name]
    names = [f"i{index}" for index in range(len(inputs))]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, inputs, strict=True)]
    node = helper.make_node(op, names, ["y"], **attributes)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = ir.from_proto(make_model([node], infos, [output], opset=23, ir=11))
    assert ir.macs(model, ir.shapes_for(model, {})) == expected


ZOO = {
    # model: (input shapes other than batch 1, MACs in millions, parameters in thousands), as the zoo's index states
    "resnet20": ({}, 40.6, 271),
    "resnet56": ({}, 125.5, 857),
    "resnet8_keras": ({}, 12.5, 78),
    "squeezenet11": ({}, 349.2, 1235),
    "mobilenetv1_025_128": ({}, 13.6, 468),
    "minilm_l6": ({"input_ids": (1, 32), "attention_mask": (1, 32), "token_type_ids": (1, 32)}, 344.5, 14238),
    "magika_v3_3": ({}, 366.7, 784),
    "espcn_superres": ({"input": (1, 1, 74, 74)}, 325.8, 60),
    "unet_sed": ({}, 1215.5, 117),
    "fastestdet_coco": ({}, 121.5, 240),
    "ultraface_rfb320": ({}, 100.4, None),
    "ppocr_cls_v2": ({"x": (1, 3, 48, 192)}, 16.3, 134),
    "sinet_portrait": ({}, None, 93),
}


@pytest.mark.zoo
@pytest.mark.parametrize("name", ZOO)
def test_zoo_models(name, zoo):
    given, millions, thousands = ZOO[name]
    proto = onnx.load(zoo / name / "model.onnx")
    model = ir.from_proto(proto)
    feeds = {tensor.name: tensor for tensor in ir.feed_inputs(model)}
    inputs = {n: given.get(n) or [d if isinstance(d, int) else 1 for d in t.shape] for n, t in feeds.items()}
    shapes = ir.shapes_for(model, inputs)
    if millions is not None:
        assert ir.macs(model, shapes) / 1e6 == pytest.approx(millions, abs=0.06)
    if thousands is not None:
        assert ir.parameters(model) / 1e3 == pytest.approx(thousands, abs=0.8)
    arrays = {n: np.ones(inputs[n], t.dtype) for n, t in feeds.items()}
    truth = true_shapes(ir.to_proto(model), arrays)
    assert {tensor: shapes[tensor] for tensor in truth} == truth
