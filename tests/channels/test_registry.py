"""The table of rules: no duplicates, opset ranges, and a barrier with its reason for everything unknown."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.defs
import pytest
from onnx import TensorProto, helper
from onnx_graphsurgeon import Node

from onnxprune import channels, ir
from onnxprune.channels import registry
from onnxprune.channels.links import Link


@pytest.fixture
def empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", {})
    monkeypatch.setattr(registry, "_HOOKS", {})


def nothing(node: Node, opset: int) -> Iterator[Link]:
    yield from ()


@pytest.mark.usefixtures("empty_table")
def test_overlapping_rules_raise() -> None:
    registry.op_rule("Thing", since=7, until=12)(nothing)
    registry.op_rule("Thing", since=13)(nothing)
    registry.op_rule("Thing", domain="com.example")(nothing)
    with pytest.raises(ValueError, match="has a rule"):
        registry.op_rule("Thing", since=12)(nothing)
    with pytest.raises(ValueError, match="has a rule"):
        registry.op_rule("Thing", since=20, until=20)(nothing)
    with pytest.raises(ValueError, match="has a rule"):
        registry.op_rule("Thing", domain="com.example")(nothing)
    assert registry.rule_for("Thing", 6) is None
    assert registry.rule_for("Thing", 12) is nothing


@pytest.mark.usefixtures("empty_table")
def test_duplicate_hooks_raise() -> None:
    registry.resize_hook("Thing")(lambda node, opset, cut: None)
    with pytest.raises(ValueError, match="hook already"):
        registry.resize_hook("Thing")(lambda node, opset, cut: None)


def test_every_hook_has_a_rule() -> None:
    assert set(registry._HOOKS) <= set(registry._RULES)


def test_every_op_is_known_to_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    known.add("SimplifiedLayerNormalization")  # ONNX Runtime's, in the standard domain
    assert {op for domain, op in channels.known_ops() if not domain} <= known


def test_subgraph_is_a_barrier() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, [2])]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("x", 1, [2])]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", 1, [2])])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert "subgraph" in channels.links_of(model.graph.nodes[0], 17).barrier


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Conv", ["x"], {}),
        ("Transpose", ["x"], {"perm": [0, 7]}),
        ("Gather", ["x", "x"], {"axis": 9}),
        ("Concat", ["x", "x"], {"axis": 2}),
        ("Softmax", ["x"], {"axis": -5}),
        ("Split", ["x"], {"axis": 2}),
        ("DepthToSpace", ["x"], {"blocksize": 0}),
        ("ReduceSum", ["x", "k"], {}),
        ("Squeeze", ["x", "k"], {}),
    ],
)
def test_malformed_nodes_are_barriers(op: str, inputs: list[str], attributes: dict[str, object]) -> None:
    infos = [helper.make_tensor_value_info(name, 1, [2, 4]) for name in ("x", "y")]
    nine = helper.make_tensor("k", TensorProto.INT64, [1], [9])
    graph = helper.make_graph([helper.make_node(op, inputs, ["y"], **attributes)], "g", infos[:1], infos[1:], [nine])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert channels.links_of(model.graph.nodes[0], 17).barrier
    assert not channels.analyze(model).groups


@pytest.mark.parametrize("opset", [6, registry.NEWEST_OPSET + 1])
def test_opset_out_of_range_is_a_barrier(opset: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert f"opset {opset}" in channels.links_of(model.graph.nodes[0], opset).barrier
    assert not channels.links_of(model.graph.nodes[0], 17).barrier
