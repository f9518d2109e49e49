"""Dead code, shared initializers, denormal weights."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.pipeline import PassContext
from passes.dead_code import DeadCode
from passes.deduplicate_initializers import DeduplicateInitializers
from passes.flush_denormals import FlushDenormals
from passes.separate_vectors import SeparateVectors


def with_weights(text_nodes, arrays, inputs, outputs, extra_inputs=()):
    made = helper.make_graph(
        text_nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    made.input.extend(extra_inputs)
    return helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_what_no_output_needs_goes_in_one_run(apply):
    done = apply(
        DeadCode(),
        """agraph (float[2] x, float[2] unused) => (float[2] y) <float[2] w = {1, 2}, float[2] lost = {3, 4}> {
            a = Add(x, w) b = Neg(a) c = Exp(b) y = Relu(x) }""",
    )
    assert done.nodes == ["y = Relu(x)"]
    assert [tensor.name for tensor in done.model.graph.inputs] == ["x", "unused"]
    assert not ir.initializers(done.model)
    assert done.result.counts["nodes"] == 3


def test_optional_outputs_that_nobody_reads_go(apply):
    done = apply(
        DeadCode(),
        """agraph (float[N,2,4,4] x) => (float[N,2,2,2] y, float[N,2,4,4] d) {
            y, indices = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x)
            d, mask = Dropout(x) }""",
    )
    assert [line.split(" = ")[0] for line in done.nodes] == ["y", "d"]


def test_an_optional_output_in_the_middle_becomes_empty(apply):
    arrays = {
        "w": np.ones((1, 8, 3), np.float32),
        "r": np.ones((1, 8, 2), np.float32),
    }
    node = helper.make_node("LSTM", ["x", "w", "r"], ["a", "b", "y"], hidden_size=2)
    done = apply(DeadCode(), with_weights([node], arrays, {"x": [4, 1, 3]}, {"y": [1, 1, 2]}))
    assert done.nodes == ["_, _, y = LSTM(x, w, r) {hidden_size=2}"] or done.nodes[0].startswith("a, _, y = LSTM")


def test_statistics_of_a_batch_norm_in_training_stay(apply):
    arrays = {name: np.ones(2, np.float32) for name in "gbmv"}
    node = helper.make_node("BatchNormalization", ["x", *"gbmv"], ["y", "mean", "var"], training_mode=1)
    done = apply(DeadCode(), with_weights([node], arrays, {"x": [3, 2]}, {"y": [3, 2]}))
    assert not done.result.modified


def test_captured_tensors_are_alive(apply):
    then = helper.make_graph(
        [helper.make_node("Add", ["a", "w"], ["t"])],
        "t",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["e"])], "e", [], [helper.make_tensor_value_info("e", TensorProto.FLOAT, [2])]
    )
    nodes = [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    proto = with_weights(nodes, {"w": np.float32([1, 2])}, {"x": [2]}, {"y": [2]}, [flag])
    done = apply(DeadCode(), proto, feeds={"x": np.float32([1, 2]), "c": np.array(True)})
    assert not done.result.modified


def test_functions_that_nothing_calls_go(apply):
    import onnx.parser

    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        agraph (float[2] x) => (float[2] y) { y = own.F(x) }
        <domain: "own", opset_import: ["" : 17, "own" : 1]> F (v) => (r) { r = own.G(v) }
        <domain: "own", opset_import: ["" : 17]> G (v) => (r) { r = Relu(v) }
        <domain: "own", opset_import: ["" : 17]> H (v) => (r) { r = Exp(v) }"""
    )
    done = apply(DeadCode(), proto)
    assert [function.name for function in done.model.header.functions] == ["F", "G"]


@pytest.mark.parametrize(("rows", "merged"), [(64, 1), (2, 0)])
def test_large_equal_weights_are_stored_once(apply, rows, merged, rng):
    weight = rng.standard_normal((rows, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"]),
        helper.make_node("MatMul", ["x", "b"], ["q"]),
        helper.make_node("Add", ["p", "q"], ["y"]),
    ]
    proto = with_weights(nodes, {"a": weight, "b": weight.copy()}, {"x": ["N", rows]}, {"y": ["N", 64]})
    done = apply(DeduplicateInitializers(), proto)
    assert dict(done.result.counts) == ({"initializers": 1} if merged else {})
    assert set(ir.initializers(done.model)) == ({"a"} if merged else {"a", "b"})


def test_weights_of_one_value_and_overridable_ones_are_not_shared(rng):
    flat = np.zeros((64, 128), np.float32)
    noise = rng.standard_normal((64, 128)).astype(np.float32)
    nodes = [helper.make_node("Sum", ["x", "a", "b", "c", "d"], ["y"])]
    arrays = {"a": flat, "b": flat, "c": noise, "d": noise}
    override = helper.make_tensor_value_info("d", TensorProto.FLOAT, [64, 128])
    proto = with_weights(nodes, arrays, {"x": [64, 128]}, {"y": [64, 128]}, [override])
    assert not DeduplicateInitializers().run(ir.from_proto(proto), PassContext()).modified


def shared_vector(values, extra_inputs=(), shape=("N", 4)):
    nodes = [
        helper.make_node("Add", ["x", "v"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["b", "v"], ["c"]),
        helper.make_node("Mul", ["v", "c"], ["y"]),
    ]
    return with_weights(nodes, {"v": np.float32(values)}, {"x": shape}, {"y": shape}, extra_inputs)


@pytest.mark.parametrize("value", [[0.5] * 4, [[0.5]] * 4], ids=["row", "column"])
def test_every_reader_of_a_repeated_value_gets_a_copy(apply, value):
    done = apply(SeparateVectors(), shared_vector(value, shape=(4, 4)))
    assert done.nodes == ["a = Add(x, v)", "b = Relu(a)", "c = Add(b, v_1)", "y = Mul(v_2, c)"]
    assert dict(done.result.counts) == {"copies": 2}


@pytest.mark.parametrize("value", [[0.5, 0.5, 0.5, 1], [0.5], 0.5, np.full((4, 4), 0.5)])
def test_what_is_shared_on_purpose_stays_shared(apply, value):
    assert not apply(SeparateVectors(), shared_vector(value, shape=(4, 4))).result.modified


def test_an_overridable_or_a_long_vector_stays_shared(apply):
    override = helper.make_tensor_value_info("v", TensorProto.FLOAT, [4])
    assert not SeparateVectors().run(ir.from_proto(shared_vector([0.5] * 4, [override])), PassContext()).modified
    assert not apply(SeparateVectors(max_bytes=16), shared_vector([0.5] * 4)).result.modified


def test_a_vector_that_a_branch_captures_stays_shared(apply):
    then, other = (
        helper.make_graph(
            [helper.make_node(op, ["v"], [op])], op, [], [helper.make_tensor_value_info(op, TensorProto.FLOAT, [4])]
        )
        for op in ("Neg", "Exp")
    )
    nodes = [
        helper.make_node("Add", ["x", "v"], ["a"]),
        helper.make_node("Less", ["x", "v"], ["less"]),
        helper.make_node("Cast", ["less"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["b"], then_branch=then, else_branch=other),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ]
    proto = with_weights(nodes, {"v": np.float32([0.5] * 4)}, {"x": ["N", 4]}, {"y": ["N", 4]})
    assert not apply(SeparateVectors(), proto).result.modified


def test_denormal_weights_become_zero_and_constants_do_not(apply):
    tiny, minus = 0x000116C2, 0x800116C2  # 1e-40, also where another library made this thread flush denormals
    weight = np.array([[tiny, minus], *np.float32([[1.0, 1e-37]]).view(np.uint32)], np.uint32).view(np.float32)
    epsilon = np.array([tiny], np.uint32).view(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Max", ["h", "e"], ["y"])]
    proto = with_weights(nodes, {"w": weight, "e": epsilon}, {"x": ["N", 2]}, {"y": ["N", 2]})
    done = apply(FlushDenormals(), proto)
    assert done.values("w").view(np.uint32).tolist() == np.float32([[0, -0.0], [1.0, 1e-37]]).view(np.uint32).tolist()
    assert np.signbit(done.values("w")[0, 1])
    assert done.values("e").view(np.uint32).tolist() == [tiny]
    assert dict(done.result.counts) == {"values": 2}


def test_a_denormal_that_another_operator_reads_stays(apply):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "w"], ["y"])]
    proto = with_weights(
        nodes,
        {"w": np.array([[0x000116C2, 0], [0, 0x3F800000]], np.uint32).view(np.float32)},
        {"x": ["N", 2]},
        {"y": [2, 2]},
    )
    assert not apply(FlushDenormals(), proto, sizes=({"N": 2},)).result.modified
