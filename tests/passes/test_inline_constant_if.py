"""Inlining of If with a known condition."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.inline_constant_if import InlineConstantIf


def value(name, kind=TensorProto.FLOAT, shape=(2,)):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(name, nodes, output, constants=()):
    return helper.make_graph(nodes, name, [], [value(output)], [numpy_helper.from_array(a, n) for n, a in constants])


def model(nodes, constants, inputs=("x",)):
    made = helper.make_graph(
        nodes,
        "g",
        [value(name) for name in inputs],
        [value("y")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(("flag", "op"), [(True, "Add"), (False, "Mul")])
def test_the_branch_taken_replaces_the_node(apply, flag, op):
    def branch(kind):
        return graph(
            kind, [helper.make_node(kind, ["r", "k"], [f"{kind}_out"])], f"{kind}_out", [("k", np.float32([3]))]
        )

    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["c"], ["z"], then_branch=branch("Add"), else_branch=branch("Mul")),
        helper.make_node("Neg", ["z"], ["y"]),
    ]
    done = apply(InlineConstantIf(), model(nodes, {"c": np.array(flag)}))
    assert done.nodes == ["r = Relu(x)", f"{op}_out = {op}(r, k)", f"z = Identity({op}_out)", "y = Neg(z)"]


def test_inner_names_that_are_taken_get_a_number_in_nested_graphs_too(apply):
    deep = graph("deep", [helper.make_node("Exp", ["r"], ["d"])], "d")
    flat = graph("flat", [helper.make_node("Neg", ["r"], ["e"])], "e")
    inner = graph(
        "inner",
        [
            helper.make_node("Abs", ["x"], ["r"]),
            helper.make_node("If", ["u"], ["o"], then_branch=deep, else_branch=flat),
        ],
        "o",
    )
    other = graph("other", [helper.make_node("Neg", ["x"], ["n"])], "n")
    taken = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=other)
    nodes = [taken, helper.make_node("Relu", ["z"], ["r2"]), helper.make_node("Neg", ["r2"], ["y"])]
    proto = model(nodes, {"c": np.array(True)})
    proto.graph.input.append(value("u", TensorProto.BOOL, []))
    proto.graph.input.append(value("r0"))
    for flag in (True, False):
        feeds = {"x": np.float32([1, -2]), "u": np.array(flag), "r0": np.float32([0, 0])}
        done = apply(InlineConstantIf(), proto, feeds=feeds, sizes=({},))
        assert done.nodes[0] == "r = Abs(x)"
        assert done.nodes[1].startswith("o = If(u)")


def test_nested_constant_conditions_go_in_one_run(apply):
    deep = graph("deep", [helper.make_node("Exp", ["x"], ["d"])], "d")
    flat = graph("flat", [helper.make_node("Neg", ["x"], ["e"])], "e")
    inner = graph("inner", [helper.make_node("If", ["c"], ["o"], then_branch=deep, else_branch=flat)], "o")
    other = graph("other", [helper.make_node("Neg", ["x"], ["n"])], "n")
    done = apply(
        InlineConstantIf(),
        model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)], {"c": np.array(True)}),
    )
    assert done.nodes == ["d = Exp(x)", "o = Identity(d)", "y = Identity(o)"]
    assert dict(done.result.counts) == {"if": 2}


def test_a_computed_condition_stays(apply):
    then = graph("then", [helper.make_node("Exp", ["x"], ["d"])], "d")
    other = graph("other", [helper.make_node("Neg", ["x"], ["n"])], "n")
    proto = model([helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], {})
    proto.graph.input.append(value("c", TensorProto.BOOL, []))
    assert not apply(InlineConstantIf(), proto, feeds={"x": np.float32([1, 2]), "c": np.array(True)}).result.modified
