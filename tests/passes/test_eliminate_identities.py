"""Golden rewrites and refusals of identity removal."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from passes.eliminate_identities import EliminateIdentities

INTS = "int64[1] one = {1}, int64[1] zero = {0}, int64[1] far = {100}, int64[4] none = {0,0,0,0}, int64[2] ones = {1,1}"
FLOATS = "float zerof = {0}, float onef = {1}, float[1,2] wide = {1, 1}, float[2] unit = {1, 1}, float[2] nil = {0, 0}"
BOOLS = "bool yes = {1}, bool no = {0}"


@pytest.mark.parametrize(
    "body",
    [
        "m = Identity(r)",
        "m = Dropout(r)",
        "m, mask = Dropout(r, zerof)",
        "m = Dropout(r, zerof, no)",
        "m = Cast <to = 1> (r)",
        "m = CastLike(r, x)",
        "m = Concat <axis = 1> (r)",
        "m = Sum(r)",
        "m = Max(r)",
        "m = Clip(r)",
        "s = Shape(r) m = Reshape(r, s)",
        "u = Unsqueeze(r, one) m = Squeeze(u, one)",
        "m = Flatten <axis = 1> (r)",
        "s = Shape(r) m = Expand(r, s)",
        "m = Tile(r, ones)",
        "m = Slice(r, zero, far, one)",
        "m = Pad(r, none)",
        "m = Transpose <perm = [0, 1]> (r)",
        "t = Transpose <perm = [1, 0]> (r) m = Transpose <perm = [1, 0]> (t)",
        "m = Add(r, zerof)",
        "m = Add(nil, r)",
        "m = Sub(r, nil)",
        "m = Mul(r, unit)",
        "m = Div(r, onef)",
        "m = Pow(r, onef)",
        "m = Relu(r)",
        "n = Neg(r) m = Neg(n)",
    ],
)
def test_what_changes_nothing_goes(apply, body):
    text = f"agraph (float[N,2] x) => (float[N,2] y) <{INTS}, {FLOATS}, {BOOLS}> {{ r = Relu(x) {body} y = Exp(m) }}"
    done = apply(EliminateIdentities(), text)
    assert done.nodes[0] == "r = Relu(x)"
    assert done.nodes[-1] == "y = Exp(r)"
    assert done.result.modified


@pytest.mark.parametrize(
    "body",
    [
        "m, mask = Dropout(r) u = Not(mask) v = Cast <to = 1> (u) w = Add(m, v) m2 = Exp(w)",
        "m = Cast <to = 11> (r) m2 = Cast <to = 1> (m)",
        "m = Concat <axis = 1> (r, r) m2 = ReduceMax <keepdims = 0> (m)",
        "m = Slice(r, far, zero, one, minus) m2 = ReduceMax <keepdims = 0> (m)",
        "m = Pad(r, shift) m2 = Exp(m)",
        "m = Transpose <perm = [1, 0]> (r) m2 = Exp(m)",
        "m = Add(r, onef) m2 = Exp(m)",
        "m = Sub(zerof, r) m2 = Exp(m)",
        "m = Div(onef, r) m2 = Exp(m)",
        "m = Mul(r, stacked) m2 = ReduceMax <keepdims = 0> (m)",
        "m = Clip(r, zerof) m2 = Exp(m)",
        "m = Neg(r) m2 = Exp(m)",
    ],
)
def test_what_changes_something_stays(apply, body):
    extra = "int64[1] minus = {-1}, int64[4] shift = {0,1,0,-1}, float[1,1,1,2] stacked = {1, 1}"
    text = f"""agraph (float[N,2] x) => (float[A,B] y) <{INTS}, {FLOATS}, {extra}, int64[2] flat = {{-1, 1}}>
        {{ r = Softplus(x) {body} y = Reshape(m2, flat) }}"""
    assert not apply(EliminateIdentities(), text).result.modified


def test_a_multiplication_that_widens_the_shape_stays(apply):
    text = "agraph (float[N,1] x) => (float[N,2] y) <float[1,2] wide = {1, 1}> { r = Relu(x) y = Mul(r, wide) }"
    assert not apply(EliminateIdentities(), text).result.modified


def test_transposes_in_a_row_become_one(apply):
    done = apply(
        EliminateIdentities(),
        """agraph (float[N,2,3,4] x) => (float[4,N,2,3] y) {
            a = Transpose <perm = [0,2,3,1]> (x)
            y = Transpose <perm = [2,0,3,1]> (a)
        }""",
    )
    assert done.nodes == ["a = Transpose(x) {perm=[0, 2, 3, 1]}", "y = Transpose(x) {perm=[3, 0, 1, 2]}"]


def test_the_node_before_takes_over_the_name_of_a_graph_output(apply):
    done = apply(
        EliminateIdentities(),
        "agraph (float[2] x) => (float[2] y, float[2] z) { r = Relu(x) y = Identity(r) z = Neg(r) }",
    )
    assert done.nodes == ["y = Relu(x)", "z = Neg(y)"]


def test_two_outputs_with_one_value_keep_both_names(apply):
    done = apply(
        EliminateIdentities(),
        "agraph (float[2] x) => (float[2] y, float[2] z) { r = Relu(x) y = Identity(r) z = Identity(r) }",
    )
    assert done.nodes == ["y = Relu(x)", "z = Identity(y)"]


@pytest.mark.parametrize("source", ["x", "w"])
def test_an_output_that_is_an_input_or_a_weight_keeps_its_identity(apply, source):
    done = apply(
        EliminateIdentities(),
        f"agraph (float[2] x) => (float[2] y) <float[2] w = {{1, 2}}> {{ y = Identity({source}) }}",
    )
    assert done.nodes == [f"y = Identity({source})"]
    assert not done.result.modified


def test_a_captured_tensor_keeps_its_name(apply):
    branch = helper.make_graph([helper.make_node("Neg", ["m"], ["a"])], "then", [], [_value("a")])
    other = helper.make_graph([helper.make_node("Exp", ["m"], ["b"])], "else", [], [_value("b")])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Identity", ["r"], ["m"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other),
    ]
    inputs = [_value("x"), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", inputs, [_value("y")])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    done = apply(EliminateIdentities(), proto)
    assert done.nodes[0] == "m = Relu(x)"


def test_dropout_in_training_mode_stays(apply):
    text = """agraph (float[2] x) => (float[2] y) <float half = {0.5}, bool yes = {1}> {
        r = Relu(x) m = Dropout(r, half, yes) y = Exp(m) }"""
    assert not apply(EliminateIdentities(), text, runs=False).result.modified


def _value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
