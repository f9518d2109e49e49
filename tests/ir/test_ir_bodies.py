"""Subgraphs opened as graphs of their own: names, types, sizes, what they compute, and the way back to a file."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import ir
from onnxprune.ir import captures
from onnxprune.ir.trial import open_session

IF = """<ir_version: 8, opset_import: ["": 17]>
net (float[2,3] x_in, bool c) => (float[2,2] z)
{
  x = Abs(x_in)
  z = If(c) <
    then_branch = a () => (float[2,2] y) <float[3,2] w = {1,2,3,4,5,6}> { h = Relu(x) y = MatMul(h, w) },
    else_branch = b () => (float[2,2] y) <float[3,2] w = {6,5,4,3,2,1}> { h = Relu(x) y = MatMul(h, w) }
  >
}"""

LOOP = """<ir_version: 8, opset_import: ["": 17]>
net (float[2,3] x, bool c) => (float[2,3] last, float[4,2,2] ys)
<int64 trips = {4}>
{
  last, ys = Loop(trips, , x) <
    body = b (int64 i, bool go, float[2,3] s) => (bool on, float[2,3] t, float[2,2] y)
    <float[3,2] w = {1,2,3,4,5,6}>
    {
      on = Identity(go)
      t = Relu(s)
      y = If(c) <
        then_branch = p () => (float[2,2] r) { m = MatMul(t, w) r = Neg(m) },
        else_branch = q () => (float[2,2] r) { r = MatMul(s, w) }
      >
    }
  >
}"""


def _model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def _run(model: ir.Model | onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = open_session(proto.SerializeToString())
    return list(session.run(None, feeds))


@pytest.mark.parametrize("text", [IF, LOOP])
@pytest.mark.parametrize("condition", [True, False])
def test_opening_changes_no_result(text: str, condition: bool, rng: np.random.Generator) -> None:
    model = _model(text)
    feeds = {
        tensor.name: np.asarray(condition) if tensor.name == "c" else rng.standard_normal((2, 3)).astype(np.float32)
        for tensor in model.graph.inputs
    }
    before = _run(model, **feeds)
    assert len(ir.graphs(model)) > 1
    for old, new, copied in zip(before, _run(model, **feeds), _run(model.copy(), **feeds), strict=True):
        assert np.array_equal(old, new) and np.array_equal(old, copied)


@pytest.mark.parametrize("text", [IF, LOOP])
def test_no_two_graphs_define_the_same_name(text: str) -> None:
    model = _model(text)
    names = Counter(
        name
        for graph in ir.graphs(model)
        for name in (
            captures.defined(graph) if isinstance(graph, ir.Body) else {tensor.name for tensor in graph.all_tensors()}
        )
    )
    assert names and max(names.values()) == 1, names


def test_sibling_branches_get_names_of_their_own_and_keep_what_they_capture() -> None:
    model = _model(IF)
    ir.infer_shapes(model)
    _, then, other = ir.graphs(model)
    assert [list(ir.tensors(body)) for body in (then, other)] == [["x", "h", "w", "y"], ["x", "h_1", "w_1", "y_1"]]
    assert isinstance(other, ir.Body) and other.formal == 0
    assert other.graph.inputs[0].shape == [2, 3] and other.graph.inputs[0].dtype == np.float32


def test_a_body_inside_a_body_sees_the_tensors_of_both_outer_graphs() -> None:
    model = _model(LOOP)
    _, body, then, other = ir.graphs(model)
    assert isinstance(body, ir.Body) and body.formal == 3
    assert [tensor.name for tensor in body.graph.inputs] == ["i", "go", "s", "c"]
    assert captures.of_body(then) == {"t", "w"} and captures.of_body(other) == {"s", "w"}  # type: ignore[arg-type]
    assert ir.captured(body) == {"t", "s", "w"} and ir.captured(model) == {"c"}


def test_inference_fills_the_sizes_of_bodies() -> None:
    model = _model(LOOP)
    ir.clear_shapes(model)
    ir.infer_shapes(model)
    shapes = {name: tensor.shape for graph in ir.graphs(model) for name, tensor in ir.tensors(graph).items()}
    assert shapes["m"] == [2, 2] and shapes["t"] == [2, 3] and shapes["r_1"] == [2, 2]


def test_scan_inputs_without_a_type_get_one() -> None:
    model = _model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[2,3] s, float[5,2,3] xs) => (float[2,3] f, float[5,2,3] ys)
        {
          f, ys = Scan <num_scan_inputs = 1, body = b (p, q) => (float[2,3] r, float[2,3] y)
          { r = Add(p, q) y = Tanh(r) }> (s, xs)
        }"""
    )
    ir.infer_shapes(model)
    body = ir.graphs(model)[1]
    assert [(tensor.dtype, tensor.shape) for tensor in body.graph.inputs] == [(np.float32, [2, 3])] * 2


def test_counts_of_subgraphs() -> None:
    """Both branches count once each, a body as often as its trip count says; weights of bodies are parameters."""
    model = _model(IF)
    assert ir.parameters(model) == 12
    assert ir.macs(model, ir.shapes_for(model, {})) == 2 * (2 * 3 * 2)
    model = _model(LOOP)
    assert ir.parameters(model) == 6
    assert ir.macs(model, ir.shapes_for(model, {})) == 4 * 2 * (2 * 3 * 2)


def test_a_scan_counts_its_body_once_a_slice() -> None:
    model = _model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[5,2,3] xs) => (float[5,2,2] ys)
        {
          ys = Scan <num_scan_inputs = 1, body = b (float[2,3] q) => (float[2,2] y)
          <float[3,2] w = {1,2,3,4,5,6}> { y = MatMul(q, w) }> (xs)
        }"""
    )
    assert ir.macs(model, ir.shapes_for(model, {})) == 5 * (2 * 3 * 2)


def test_a_name_that_is_read_before_it_is_written_keeps_its_subgraph_closed() -> None:
    proto = onnx.parser.parse_model(IF)
    proto.graph.node[1].attribute[0].g.node.append(onnx.helper.make_node("Identity", ["y"], ["x"]))
    model = ir.from_proto(proto)
    assert len(ir.graphs(model)) == 2
    written = ir.to_proto(model).graph.node[1].attribute[0].g
    assert [node.op_type for node in written.node] == ["Relu", "MatMul", "Identity"]


def test_a_model_with_functions_keeps_its_subgraphs_closed() -> None:
    proto = onnx.parser.parse_model(IF)
    proto.functions.append(
        onnx.parser.parse_function('<domain: "f", opset_import: ["": 17]> g (a) => (b) { b = Abs(a) }')
    )
    proto.opset_import.append(onnx.helper.make_opsetid("f", 1))
    assert len(ir.graphs(ir.from_proto(proto))) == 1


def test_a_copy_shares_no_body() -> None:
    model = _model(IF)
    ir.graphs(model)
    copy = model.copy()
    ir.initializers(ir.graphs(copy)[1])["w"].values = np.zeros((3, 2), np.float32)
    assert ir.initializers(ir.graphs(model)[1])["w"].values.any()
    assert ir.text(model) != ir.text(copy)
