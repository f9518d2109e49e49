"""Queries, order, copies and the text form."""

from __future__ import annotations

import random
import time

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError


def chain(length, make_model, vector, shuffled=False):
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(length)]
    if shuffled:
        random.Random(0).shuffle(nodes)
    return make_model(nodes, [vector("t0")], [vector(f"t{length}")])


def test_a_chain_of_ten_thousand_nodes_is_sorted_and_linear(make_model, vector):
    def seconds(length):
        proto = chain(length, make_model, vector, shuffled=True)
        start = time.process_time()
        model = ir.from_proto(proto)
        ir.to_proto(model.copy())
        for node in model.graph.nodes:
            node.inputs.clear()
            node.outputs.clear()
        return time.process_time() - start

    seconds(100)
    model = ir.from_proto(chain(10_000, make_model, vector, shuffled=True))
    assert [node.outputs[0].name for node in model.graph.nodes] == [f"t{i + 1}" for i in range(10_000)]
    small, large = (min(seconds(length) for _ in range(2)) for length in (1_000, 8_000))
    assert large < 24 * small, "eight times the nodes, at most three times the time for each"


def test_the_order_of_independent_nodes_is_kept(make_model, vector):
    nodes = [helper.make_node("Relu", ["x"], [f"t{i}"]) for i in (3, 1, 2)]
    nodes.append(helper.make_node("Sum", ["t1", "t2", "t3"], ["y"]))
    model = ir.from_proto(make_model([nodes[3], *nodes[:3]], [vector("x")], [vector("y")]))
    assert [ir.node_key(node) for node in model.graph.nodes] == ["t3", "t1", "t2", "y"]


def test_captured_tensors_count_as_inputs_of_the_node(make_model, vector):
    body = helper.make_graph([helper.make_node("Neg", ["late"], ["t"])], "b", [], [vector("t")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body),
        helper.make_node("Relu", ["x"], ["late"]),
    ]
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    model = ir.from_proto(make_model(nodes, [vector("x"), flag], [vector("y")]))
    assert [node.op for node in model.graph.nodes] == ["Relu", "If"]
    assert ir.captured(model) == {"late"}
    assert [ir.has_subgraph(node) for node in model.graph.nodes] == [False, True]


def test_captures_see_nested_graphs_and_ignore_what_is_defined_inside(make_model, vector):
    weight = numpy_helper.from_array(np.ones(4, np.float32), "own")
    inner = helper.make_graph(
        [helper.make_node("Sum", ["outer", "middle", "own"], ["i"])], "i", [], [vector("i")], [weight]
    )
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    nodes = [
        helper.make_node("Identity", ["direct"], ["middle"]),
        helper.make_node("If", ["flag"], ["m"], then_branch=inner, else_branch=inner),
    ]
    middle = helper.make_graph(nodes, "m", [flag], [vector("m"), vector("returned")])
    node = gs.Node("Loop", attrs={"body": helper.make_attribute("body", middle)})
    model = ir.Model(gs.Graph([node]), onnx.ModelProto())
    assert ir.captured(model) == {"outer", "direct", "returned"}


def test_cycles_made_by_a_pass_are_found(small_cnn):
    model = ir.from_proto(small_cnn)
    first, last = model.graph.nodes[0], model.graph.nodes[-1]
    first.inputs[0] = last.outputs[0]
    with pytest.raises(ModelError, match="cycle"):
        ir.topological_sort(model)


def test_queries(small_cnn):
    model = ir.from_proto(small_cnn)
    tensors = ir.tensors(model)
    assert list(tensors)[:4] == ["x", "w1", "b1", "c1"]
    assert list(ir.initializers(model)) == ["w1", "b1", "w2", "b2"]
    conv = ir.producer(tensors["c1"])
    assert conv.op == "Conv" and ir.producer(tensors["x"]) is None and ir.producer(tensors["w1"]) is None
    assert [node.op for node in ir.consumers(tensors["c1"])] == ["Relu"]
    assert ir.attribute(conv, "pads") == [1, 1, 1, 1] and ir.attribute(conv, "group", 1) == 1
    assert ir.node_key(conv) == "c1" and ir.domain(conv) == ir.domain(gs.Node("Conv", domain="ai.onnx")) == ""
    assert ir.constant(tensors["w1"]).shape == (8, 3, 3, 3) and ir.constant(tensors["c1"]) is None
    assert model.opset() == model.opset("ai.onnx") == 17 and model.opset("com.microsoft") == 0
    assert ir.parameters(model) == 8 * 27 + 8 + 40 + 5


def test_a_node_that_reads_a_tensor_twice_is_one_consumer(make_model, vector):
    model = ir.from_proto(make_model([helper.make_node("Mul", ["x", "x"], ["y"])], [vector("x")], [vector("y")]))
    assert len(ir.consumers(ir.tensors(model)["x"])) == 1


def test_omitted_inputs_and_outputs_are_no_tensors(make_model, vector):
    six = numpy_helper.from_array(np.float32(6), "six")
    nodes = [
        helper.make_node("Clip", ["x", "", "six"], ["t"]),
        helper.make_node("Dropout", ["t"], ["y", ""]),
    ]
    proto = make_model(nodes, [vector("x")], [vector("y")], [six])
    model = ir.from_proto(proto)
    clip, dropout = model.graph.nodes
    assert clip.inputs[1].is_empty() and dropout.outputs[1].is_empty() and "" not in ir.tensors(model)
    assert list(ir.to_proto(model).graph.node) == nodes


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value": numpy_helper.from_array(np.arange(3))}, np.arange(3)),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_floats": [1.0, 2.0]}, np.array([1, 2], np.float32)),
        ({"value_ints": [1, 2]}, np.array([1, 2])),
        ({"value_string": "a"}, np.array("a", object)),
    ],
)
def test_constant_nodes(attribute, expected, make_model):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = ir.from_proto(make_model([helper.make_node("Constant", [], ["y"], **attribute)], [], [output]))
    values = ir.constant(ir.tensors(model)["y"])
    assert values.dtype == expected.dtype and values.shape == expected.shape and values.tolist() == expected.tolist()


def test_constant_node_with_an_empty_list_or_sparse_value(make_model):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value_ints", type=AttributeProto.INTS)
    empty = ir.constant(ir.tensors(ir.from_proto(make_model([node], [], [output])))["y"])
    assert empty.shape == (0,) and empty.dtype == np.int64
    values, indices = helper.make_tensor("v", 1, [2], [1.0, 2.0]), helper.make_tensor("i", 7, [2], [0, 3])
    node = helper.make_node("Constant", [], ["y"], sparse_value=helper.make_sparse_tensor(values, indices, [4]))
    dense = ir.constant(ir.tensors(ir.from_proto(make_model([node], [], [output])))["y"])
    assert dense.tolist() == [1, 0, 0, 2]


def test_copies_share_arrays_and_nothing_else(small_cnn):
    model = ir.from_proto(small_cnn)
    copy = model.copy()
    assert ir.text(copy) == ir.text(model)
    assert np.shares_memory(ir.initializers(copy)["w1"].values, ir.initializers(model)["w1"].values)
    before = ir.to_proto(model).SerializeToString()
    copy.graph.nodes[0].attrs["pads"][0] = 7
    copy.graph.nodes[0].op = "Other"
    ir.initializers(copy)["w1"].values = np.zeros((1, 1, 1, 1), np.float32)
    ir.tensors(copy)["x"].shape[0] = 3
    copy.header.producer_name = "copy"
    copy.graph.nodes.pop()
    copy.graph.outputs.clear()
    copy.loose["w"] = ir.Constant("w", np.ones(1))
    assert ir.to_proto(model).SerializeToString() == before


def test_two_tensors_of_one_name_are_not_exported(small_cnn):
    model = ir.from_proto(small_cnn)
    model.graph.nodes[-1].inputs[1] = ir.Constant("w1", np.ones((5, 8), np.float32))
    with pytest.raises(ModelError, match="two different tensors are called 'w1'"):
        ir.to_proto(model)


def test_identical_nodes_are_told_apart(make_model, vector):
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in ("a", "b")]
    model = ir.from_proto(
        make_model([*nodes, helper.make_node("Add", ["a", "b"], ["y"])], [vector("x")], [vector("y")])
    )
    first, second, _ = model.graph.nodes
    first.outputs.clear()
    second.outputs.clear()
    second.inputs.clear()
    assert [node is first for node in ir.tensors(model)["x"].outputs] == [True]


def test_tensors_change_kind_in_place(small_cnn):
    model = ir.from_proto(small_cnn)
    tensor = ir.tensors(model)["p1"]
    tensor.inputs.clear()
    tensor.to_constant(np.zeros((1, 8, 1, 1), np.float32))
    assert isinstance(tensor, ir.Constant) and "p1" in ir.initializers(model)
    tensor.to_variable(shape=[1, 8, 1, 1])
    assert isinstance(tensor, ir.Variable) and tensor.dtype == np.float32


def test_text_is_stable_and_shows_what_matters(small_cnn):
    model = ir.from_proto(small_cnn)
    lines = ir.text(model).splitlines()
    assert lines[0] == "ir 8, opset ai.onnx 17"
    assert lines[1] == "input x float[batch,3,8,8]"
    assert lines[2].startswith("const w1 float[8,3,3,3] #")
    assert "c1 = Conv(x, w1, b1) {pads=[1, 1, 1, 1]}" in lines
    assert lines[-1] == "output y float[batch,5]"
    reordered = onnx.ModelProto.FromString(small_cnn.SerializeToString())
    reordered.doc_string = "other"
    for node in reordered.graph.node:
        node.name += "!"
        node.attribute.reverse()
    assert ir.text(ir.from_proto(reordered)) == ir.text(model)
    weight = ir.initializers(model)["w1"]
    weight.values = weight.values + 1
    assert ir.text(model).splitlines()[2] != lines[2]


def test_free_names_count_up_and_take_nothing():
    taken = {"a", "a_1"}
    assert ir.free_name("b", taken) == "b"
    assert ir.free_name("a", taken) == "a_2"
    assert ir.free_name("a", taken, {"a_2": 0}) == "a_3"
    assert taken == {"a", "a_1"}
