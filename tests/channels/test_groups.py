"""Which units are found, how they are grouped and named, and why the rest is frozen."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import channels, ir
from onnxprune.errors import UsageError


def tail(net, x: str, inputs: int) -> str:
    """A contraction into a graph output."""
    return net.conv(x, 5, inputs, name="last")


def test_chain_has_one_group_per_hidden_width(net):
    n = net()
    a = n.op("Relu", n.conv(n.input("N", 3, 8, 8), 8, 3, 3, name="first"))
    model = n.model(tail(n, n.conv(a, 6, 8, name="second"), 6))
    graph = channels.analyze(model)
    assert [(g.name, g.kind, g.width, g.exact) for g in graph.groups] == [
        ("first:0", "channel", 8, True),
        ("second:0", "channel", 6, True),
    ]
    first = graph.groups[0]
    assert first.producers == (("first", 0),)
    assert [(c.tensor, c.axis) for c in first.contractions] == [("second", 1)]
    assert {key for key in first.owner if key[0].startswith("w")} == {("w1", 0)}
    np.testing.assert_array_equal(first.owner["second", 1], np.arange(8))
    assert [(f.axis, f.size) for f in graph.frozen] == [(("last", 0), 5)]
    assert graph.frozen[0].reason.startswith("graph output")


def test_residual_ties_a_spine(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 8, 3, name="stem")
    for i in range(2):
        inner = n.op("Relu", n.conv(x, 4, 8, name=f"in{i}"))
        x = n.op("Add", x, n.conv(inner, 8, 4, name=f"out{i}"))
    graph = channels.analyze(n.model(tail(n, x, 8)))
    assert [g.name for g in graph.groups] == ["stem:0", "in0:0", "in1:0"]
    spine = graph.group("stem:0")
    assert spine.producers == (("stem", 0), ("out0", 0), ("out1", 0))
    assert [c.tensor for c in spine.contractions] == ["in0", "in1", "last"]


def test_concat_keeps_groups_apart(net):
    n = net()
    x = n.input("N", 3, 8, 8)
    joined = n.op("Concat", n.conv(x, 4, 3, name="a"), n.conv(x, 6, 3, name="b"), axis=1)
    graph = channels.analyze(n.model(tail(n, joined, 10)))
    assert [(g.name, g.width) for g in graph.groups] == [("a:0", 4), ("b:0", 6)]
    np.testing.assert_array_equal(graph.group("b:0").owner["last", 1], [-1] * 4 + list(range(6)))


def test_split_halves_are_two_groups_of_one_producer(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 8, 3, name="a")
    left, right = n.ops("Split", 2, x, n.ints(4, 4), axis=1)
    both = n.op("Concat", n.op("Relu", left), n.conv(right, 3, 4, name="b"), axis=1)
    graph = channels.analyze(n.model(tail(n, both, 7)))
    assert [(g.name, g.width) for g in graph.groups] == [("a:0", 4), ("a:0#2", 4), ("b:0", 3)]


def test_grouped_convolution_removes_the_same_offset_from_every_group(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 8, 3, name="a")
    graph = channels.analyze(n.model(tail(n, n.conv(x, 12, 8, 3, name="g", group=2), 12)))
    assert [(g.name, g.width) for g in graph.groups] == [("a:0", 4), ("g:0", 6)]
    np.testing.assert_array_equal(graph.group("g:0").owner["g", 0], np.tile(np.arange(6), 2))
    np.testing.assert_array_equal(graph.group("a:0").owner["g", 1], np.arange(4))


def test_depthwise_passes_units_through(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 8, 3, name="a")
    graph = channels.analyze(n.model(tail(n, n.conv(x, 16, 8, 3, name="d", group=8), 16)))
    assert [(g.name, g.width) for g in graph.groups] == [("a:0", 8)]
    np.testing.assert_array_equal(graph.groups[0].owner["last", 1], np.repeat(np.arange(8), 2))


def test_pad_shortcut_does_not_freeze_the_spine(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 4, 3, name="stem")
    down = n.conv(x, 8, 4, 3, name="down", strides=[2, 2])
    short = n.op("Slice", x, n.ints(0, 0), n.ints(99, 99), n.ints(2, 3), n.ints(2, 2))
    short = n.op("Pad", short, n.ints(0, 2, 0, 0, 0, 2, 0, 0))
    graph = channels.analyze(n.model(tail(n, n.op("Add", down, short), 8)))
    assert [(g.name, g.width) for g in graph.groups] == [("stem:0", 4), ("down:0", 4)]
    np.testing.assert_array_equal(graph.group("stem:0").owner["down", 0], [-1, -1, 0, 1, 2, 3, -1, -1])


def test_flatten_unit_takes_all_its_positions(net):
    n = net()
    x = n.conv(n.input("N", 3, 2, 3), 4, 3, name="a")
    flat = n.op("Flatten", x)
    graph = channels.analyze(n.model(n.op("Gemm", flat, n.weight(24, 5, name="last"))))
    np.testing.assert_array_equal(graph.group("a:0").owner["last", 0], np.repeat(np.arange(4), 6))


def attention(net, *, dims: int = 12, heads: int = 3):
    n = net()
    x = n.input("N", "S", 7)
    n_heads, size = heads, dims // heads
    query, key, value = (n.linear(x, 7, dims, name=name) for name in "qkv")
    shape = n.ints(0, 0, n_heads, size)
    query, key, value = (n.op("Reshape", each, shape) for each in (query, key, value))
    query, value = (n.op("Transpose", each, perm=[0, 2, 1, 3]) for each in (query, value))
    scores = n.op("MatMul", query, n.op("Transpose", key, perm=[0, 2, 3, 1]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), value)
    joined = n.op("Reshape", n.op("Transpose", mixed, perm=[0, 2, 1, 3]), n.ints(0, 0, dims))
    return n.model(n.linear(joined, dims, 5, name="o"))


def test_heads_are_units(net):
    graph = channels.analyze(attention(net))
    (group,) = graph.groups
    assert (group.name, group.kind, group.width, group.exact) == ("q:1", "head", 3, True)
    assert group.producers == (("q", 1), ("k", 1), ("v", 1))
    np.testing.assert_array_equal(group.owner["o", 0], np.repeat(np.arange(3), 4))
    assert [c.tensor for c in group.contractions] == ["o"]


def test_head_dimensions_are_units(net):
    graph = channels.analyze(attention(net), granularity="head_dim")
    assert [(g.name, g.kind, g.width) for g in graph.groups] == [("q:1", "head_dim", 4), ("v:1", "head_dim", 4)]
    np.testing.assert_array_equal(graph.groups[0].owner["k", 1], np.tile(np.arange(4), 3))
    assert graph.groups[0].contractions[0].axis == 2


def test_channel_shuffle_ties_across_groups(net):
    n = net()
    x = n.conv(n.input(2, 3, 4, 4), 8, 3, name="a")
    x = n.op("Reshape", x, n.ints(2, 2, 4, 4, 4))
    x = n.op("Reshape", n.op("Transpose", x, perm=[0, 2, 1, 3, 4]), n.ints(2, 8, 4, 4))
    graph = channels.analyze(n.model(tail(n, x, 8)))
    (group,) = graph.groups
    assert group.width == 4
    np.testing.assert_array_equal(group.owner["a", 0], np.tile(np.arange(4), 2))
    np.testing.assert_array_equal(group.owner["last", 1], np.repeat(np.arange(4), 2))


def test_embedding_width_with_layer_norm_is_approximate(net):
    n = net()
    tokens = n.input("N", "S", name="ids", kind=onnx.TensorProto.INT64)
    x = n.op("Gather", n.weight(20, 8, name="table"), tokens)
    x = n.op("LayerNormalization", x, n.weight(8), n.weight(8), axis=-1)
    (group,) = channels.analyze(n.model(n.linear(x, 8, 5))).groups
    assert (group.name, group.kind, group.exact) == ("table:1", "embedding", False)


def test_shared_weight_ties_both_uses(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 6, 3, name="a")
    w = n.weight(6, 6, 1, 1, name="shared")
    y = n.op("Conv", n.op("Relu", n.op("Conv", x, w)), w)
    (group,) = channels.analyze(n.model(tail(n, y, 6))).groups
    assert group.width == 6
    np.testing.assert_array_equal(group.owner["shared", 0], group.owner["shared", 1])


def test_unknown_operator_freezes_only_its_neighbours(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 6, 3, name="a")
    odd = n.op("Odd", n.conv(x, 4, 6, name="b"), domain="com.example")
    model = n.proto(n.op("Concat", tail(n, x, 6), odd, axis=1))
    model.graph.value_info.append(helper.make_tensor_value_info(odd, 1, ["N", 4, 8, 8]))
    model = onnx.shape_inference.infer_shapes(model)
    graph = channels.analyze(ir.from_proto(model))
    assert [g.name for g in graph.groups] == ["a:0"]
    frozen = {f.axis[0]: f for f in graph.frozen}
    assert "no rule for com.example.Odd" in frozen["b"].reason
    assert frozen["b"].chain[0] == "b:0"


def test_frozen_chain_leads_to_the_output(net):
    n = net()
    x = n.op("Relu", n.conv(n.input("N", 3, 8, 8), 6, 3, name="a"), out="r")
    graph = channels.analyze(n.model(n.op("Sigmoid", x, out="y")))
    (frozen,) = graph.frozen
    assert frozen.chain == ("a:0", "Conv t0 -> t0:1", "Relu r -> r:1", "Sigmoid y -> y:1", "graph output y")
    lines = graph.explain("a", 0)
    assert lines[0] == "a:0: 6 of 6 frozen"
    assert lines[-1] == "graph output y"
    assert graph.explain("r", 1)[:2] == ["r:1: 6 of 6 frozen", "r:1"]


def test_explain_names_everything_that_holds_an_axis(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 6, 3, name="a")
    graph = channels.analyze(n.model(*(n.op(op, x, out=op) for op in ("Abs", "Exp", "Neg", "Sign", "Sqrt"))))
    (*_, reason, others) = graph.explain("a", 0)
    assert reason == "graph output Abs"
    assert others == "also held by graph output Exp, graph output Neg, graph output Sign and 1 more"


def test_explain_names_the_group(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 6, 3, name="a")
    graph = channels.analyze(n.model(tail(n, x, 6)))
    assert graph.explain("last", 1) == [
        "last:1: 6 of 6 in group a:0 (channel, 6 units)",
        "  made by a:0",
        "  summed away by last:1 in t1",
    ]
    assert graph.explain("t0", 1)[0] == "t0:1: 6 of 6 in group a:0 (channel, 6 units)"
    with pytest.raises(UsageError, match="TENSOR:AXIS"):
        graph.explain("nobody", 0)


def test_unit_that_nothing_sums_is_frozen(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 6, 3, name="a")
    n.op("Relu", x)
    y = tail(n, n.conv(n.input("N", 3, 8, 8, name="x2"), 4, 3, name="b"), 4)
    graph = channels.analyze(n.model(y))
    assert {f.axis[0]: f.reason for f in graph.frozen}["a"] == "no weight sums it away"


def test_freeze_pins_by_name(net):
    n = net()
    a = n.conv(n.input("N", 3, 8, 8), 8, 3, name="first")
    model = n.model(tail(n, n.conv(a, 6, 8, name="second"), 6))
    graph = channels.analyze(model, freeze="^first$")
    assert [g.name for g in graph.groups] == ["second:0"]
    assert graph.frozen[0].reason == "frozen by name: first"


def test_overridable_initializer_is_pinned(net):
    n = net()
    a = n.conv(n.input("N", 3, 8, 8), 8, 3, name="first")
    n.inputs.append(helper.make_tensor_value_info("first", 1, [8, 3, 1, 1]))
    graph = channels.analyze(n.model(tail(n, a, 8)))
    assert not graph.groups
    assert graph.frozen[0].reason == "overridable initializer first"


def test_tensor_used_in_a_subgraph_is_pinned(net):
    n = net()
    a = n.conv(n.input("N", 3, 8, 8), 8, 3, name="a")
    body = helper.make_graph(
        [helper.make_node("Identity", [a], ["inner"])], "body", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    n.constant(np.array(True), "yes")
    n.nodes.append(helper.make_node("If", ["yes"], ["side"], then_branch=body, else_branch=body))
    graph = channels.analyze(n.model(tail(n, a, 8), "side"))
    assert not graph.groups
    assert "subgraph" in graph.frozen[0].reason


@pytest.mark.parametrize("mask", [np.ones(3, bool), np.ones(8), np.zeros(8, bool)], ids=["length", "dtype", "empty"])
def test_bad_masks_are_refused(net, mask):
    n = net()
    a = n.conv(n.input("N", 3, 8, 8), 8, 3, name="a")
    graph = channels.analyze(n.model(tail(n, a, 8)))
    with pytest.raises(UsageError, match="a:0"):
        graph.removals({"a:0": mask})


def test_unknown_group_and_granularity_are_refused(net):
    n = net()
    model = n.model(tail(n, n.conv(n.input("N", 3, 8, 8), 8, 3), 8))
    with pytest.raises(UsageError, match="no group"):
        channels.analyze(model).removals({"nobody:0": np.ones(8, bool)})
    with pytest.raises(UsageError, match="granularity"):
        channels.analyze(model, granularity="atom")


def test_removals_name_weights_and_activations(net):
    n = net()
    a = n.conv(n.input("N", 3, 8, 8), 4, 3, name="a")
    graph = channels.analyze(n.model(tail(n, a, 4)))
    removed = graph.removals({"a:0": np.array([True, False, True, False])})
    assert {key: list(map(int, gone)) for key, gone in removed.items()} == {
        ("a", 0): [1, 3],
        ("w1", 0): [1, 3],
        ("t0", 1): [1, 3],
        ("last", 1): [1, 3],
    }
