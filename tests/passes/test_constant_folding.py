"""Golden rewrites and refusals of constant folding."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.pipeline import PassContext
from passes.constant_folding import ConstantFolding


def test_constant_nodes_become_initializers(apply):
    done = apply(
        ConstantFolding(),
        """agraph (float[N,2] x) => (float[N,2] y) {
            c = Constant <value = float[2] {1.5, -2}> ()
            y = Mul(x, c)
        }""",
    )
    assert done.nodes == ["y = Mul(x, c)"]
    assert done.values("c").tolist() == [1.5, -2]
    assert dict(done.result.counts) == {"constant": 1}


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("value_float = 2.5", np.float32(2.5)),
        ("value_int = 7", np.int64(7)),
        ("value_ints = [1, 2]", np.array([1, 2])),
        ("value_floats = [1.0, 2.0]", np.array([1, 2], np.float32)),
    ],
)
def test_every_numeric_spelling_of_constant_keeps_its_type(apply, attribute, expected):
    done = apply(
        ConstantFolding(),
        f"agraph (float[1] x) => (float[1] y) {{ c = Constant <{attribute}> () "
        "f = Cast <to = 1> (c) s = ReduceSum <keepdims = 0> (f) y = Add(x, s) }",
    )
    assert done.nodes == ["y = Add(x, s)"]
    assert done.values("s") == np.float32(np.sum(expected))


def test_a_chain_folds_in_one_run(apply):
    done = apply(
        ConstantFolding(),
        """agraph (float[N,4] x) => (float[N,2] y) <float[2,4] w = {1,2,3,4,5,6,7,8}, float s = {2}> {
            t = Transpose <perm = [1, 0]> (w)
            u = Mul(t, s)
            y = MatMul(x, u)
        }""",
    )
    assert done.nodes == ["y = MatMul(x, u)"]
    assert done.values("u").tolist() == [[2, 10], [4, 12], [6, 14], [8, 16]]


@pytest.mark.parametrize(
    ("perm", "rest", "read"),
    [
        ("perm = [1, 0]", "y = MatMul(x, t)", "w.T"),
        ("perm = [0, 1]", "y = MatMul(x, t)", "t"),
        ("perm = [1, 0]", "a = MatMul(x, t) y = MatMul(a, w)", "t"),  # w is needed itself
    ],
)
def test_a_transposed_matrix_keeps_the_name_of_the_weight(apply, perm, rest, read):
    done = apply(
        ConstantFolding(),
        f"""agraph (float[N,2] x) => (float[N,2] y) <float[2,2] w = {{1,2,3,4}}> {{
            t = Transpose <{perm}> (w)
            {rest}
        }}""",
    )
    assert f"MatMul(x, {read})" in done.nodes[0]
    assert done.values(read).tolist() == ([[1, 2], [3, 4]] if "0, 1" in perm else [[1, 3], [2, 4]])


def test_a_transposed_matrix_takes_no_name_that_is_there(apply):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}, float[2] other = {1, 1}> {
            t = Transpose (w)
            a = MatMul(x, t)
            y = Add(a, other)
        }"""
    )
    model.graph.initializer[1].name = model.graph.node[2].input[1] = "w.T"
    done = apply(ConstantFolding(), model)
    assert done.nodes == ["a = MatMul(x, w.T_1)", "y = Add(a, w.T)"]


def test_shape_of_a_weight_and_what_follows_fold(apply):
    done = apply(
        ConstantFolding(),
        """agraph (float[N,3] x) => (float[N,3] y) <float[3] w = {1,2,3}, float zero = {0}> {
            s = Shape(w)
            e = Expand(zero, s)
            y = Add(x, e)
        }""",
    )
    assert done.nodes == ["y = Add(x, e)"]
    assert done.values("e").tolist() == [0, 0, 0]


def test_cast_like_of_a_constant_uses_the_inferred_type(apply):
    done = apply(
        ConstantFolding(),
        """agraph (float[N,2] x) => (float[N,2] y) <double[2] c = {0.5, 2}> {
            r = Relu(x)
            d = CastLike(c, r)
            y = Add(r, d)
        }""",
    )
    assert done.nodes == ["r = Relu(x)", "y = Add(r, d)"]
    assert done.values("d").dtype == np.float32


def test_a_graph_output_keeps_its_name_and_producer(apply):
    done = apply(
        ConstantFolding(),
        "agraph (float[1] x) => (float[2] y, float[1] z) { y = Constant <value = float[2] {1, 2}> () z = Relu(x) }",
    )
    assert done.nodes == ["y = Identity(y_value)", "z = Relu(x)"]


def test_a_folded_graph_output_still_feeds_other_nodes(apply):
    done = apply(
        ConstantFolding(),
        """agraph (float[2] x) => (float[2] c, float[2] y) <float[2] w = {1, 2}> {
            c = Neg(w)
            y = Add(x, c)
        }""",
    )
    assert done.nodes == ["c = Identity(c_value)", "y = Add(x, c_value)"]


def test_a_captured_constant_stays_visible_to_the_subgraph(apply):
    branch = helper.make_graph([helper.make_node("Add", ["x", "c"], ["inner"])], "then", [], [_value("inner", [2])])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["negated"])], "else", [], [_value("negated", [2])])
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([1, 2])))
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)
    inputs = [_value("x", [2]), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    proto = _model(helper.make_graph([constant, node], "g", inputs, [_value("y", [2])]))
    for flag in (True, False):
        done = apply(
            ConstantFolding(), proto, feeds={"x": np.float32([3, 4]), "flag": np.array(flag)}, sizes=({"N": 1},)
        )
        assert [line.split("(")[0] for line in done.nodes] == ["y = If"]
        assert "c" in done.model.loose


@pytest.mark.parametrize(
    "body",
    [
        "r = RandomNormal <shape = [2]> () y = Add(x, r)",
        "r = RandomUniformLike(w) y = Add(x, r)",
        "r = Bernoulli(w) y = Add(x, r)",
    ],
)
def test_random_operators_never_fold(apply, body):
    done = apply(
        ConstantFolding(), f"agraph (float[2] x) => (float[2] y) <float[2] w = {{0.5, 0.5}}> {{ {body} }}", runs=False
    )
    assert not done.result.modified


@pytest.mark.parametrize("divisor, reason", [("0", "by zero"), ("-1", "overflows")])
def test_integer_divisions_that_trap_are_left_alone(apply, divisor, reason):
    text = f"""agraph (int64[1] x) => (int64[1] y)
        <int64[1] a = {{-9223372036854775808}}, int64[1] b = {{{divisor}}}> {{ q = Div(a, b) y = Add(x, q) }}"""
    done = apply(ConstantFolding(), text, runs=False)
    assert not done.result.modified
    assert [(skip.node, reason in skip.reason) for skip in done.result.skips] == [("q", True)]


def test_an_empty_convolution_is_not_run(apply):
    text = """agraph (float[1] x) => (float[1,0,1,1] y) <float[1,1,1,1] i = {1}, float[0,1,1,1] w = {}> {
        c = Conv(i, w) y = Mul(c, x) }"""
    done = apply(ConstantFolding(), text, runs=False)
    assert [skip.reason for skip in done.result.skips] == ["it convolves an empty tensor"]


def test_doubling_stops_at_the_budget_for_all_results_together():
    body = "".join(f"t{k + 1} = Concat <axis = 0> (t{k}, t{k}) " for k in range(30))
    text = f"agraph (float[1] x) => (float[A] y) <float[1024] t0> {{ {body} y = Mul(t30, x) }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1024, np.float32), "t0"))
    del proto.graph.value_info[:]
    model = ir.from_proto(proto)
    result = ConstantFolding().run(model, PassContext())
    assert 5 < result.counts["folded"] < 20
    assert sum(tensor.values.nbytes for tensor in ir.initializers(model).values()) < 70 << 20


def test_a_result_over_the_budget_is_left_alone(apply):
    text = """agraph (float[1] x) => (float[M,M] y) <int64[2] s = {2000, 2000}> {
        big = ConstantOfShape(s) y = Add(x, big) }"""
    done = apply(ConstantFolding(), text, sizes=({},))
    assert not done.result.modified
    assert "16000000 bytes" in done.result.skips[0].reason
    assert apply(ConstantFolding(max_growth=16_000_000), text, sizes=({},)).nodes == ["y = Add(x, big)"]


def test_an_overridable_initializer_is_not_a_constant(apply):
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[2] x, float[2] w = {1, 2}) => (float[2] y) { n = Neg(w) y = Add(x, n) }"""
    )
    assert {value.name for value in proto.graph.input} == {"x", "w"}
    model = ir.from_proto(proto)
    assert not ConstantFolding().run(model, PassContext()).modified


def test_a_dequantized_weight_of_a_quantized_operator_stays_quantized(apply):
    text = """agraph (uint8[1,2] x) => (float[1,2] y)
        <int8[2,2] w = {1,2,3,4}, float s = {0.5}, uint8 z = {0}, int8 zw = {0}> {
        a = DequantizeLinear(x, s, z) b = DequantizeLinear(w, s, zw) y = MatMul(a, b) }"""
    assert not apply(ConstantFolding(), text).result.modified


def test_a_dequantized_weight_of_a_float_operator_stays_quantized(apply):
    text = """agraph (float[1,2] x) => (float[1,2] y) <int8[2,2] w = {1,2,3,4}, float s = {0.5}, int8 z = {0}> {
        b = DequantizeLinear(w, s, z) t = Transpose(b) y = MatMul(x, t) }"""
    assert not apply(ConstantFolding(), text).result.modified


def test_a_quantized_weight_that_is_stored_in_float_is_stored_in_8_bits(apply):
    text = """agraph (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}, float s = {0.5}, int8 z = {0}> {
        q = QuantizeLinear(w, s, z) b = DequantizeLinear(q, s, z) y = MatMul(x, b) }"""
    done = apply(ConstantFolding(), text)
    assert done.nodes == ["b = DequantizeLinear(q, s, z)", "y = MatMul(x, b)"]
    assert done.values("q").tolist() == [[2, 4], [6, 8]]


def test_a_dequantized_bias_of_a_float_operator_folds(apply):
    text = """agraph (float[1,2] x) => (float[1,2] y) <int32[2] c = {1,2}, float s = {0.5}> {
        b = DequantizeLinear(c, s) y = Add(x, b) }"""
    done = apply(ConstantFolding(), text)
    assert done.nodes == ["y = Add(x, b)"]
    assert done.values("b").tolist() == [0.5, 1]


@pytest.mark.parametrize(("rows", "folds"), [(64, False), (2, True)])
def test_a_large_weight_in_half_precision_is_not_widened(apply, rows, folds):
    weight = numpy_helper.from_array(np.ones((rows, 64), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["w"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [_value("x", [1, rows])], [_value("y", [1, 64])], [weight])
    assert apply(ConstantFolding(), _model(graph)).result.modified is folds


def test_other_domains_and_local_functions_are_left_alone(apply):
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        agraph (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { d = own.Twice(w) y = Add(x, d) }
        <domain: "own", opset_import: ["" : 17]> Twice (v) => (r) { r = Add(v, v) }"""
    )
    assert not apply(ConstantFolding(), proto).result.modified


def _value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(graph):
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
