"""What share of a model is prunable, and which causes keep the rest."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from onnxprune import channels, ir


def shares(model: ir.Model) -> channels.Shares:
    """At batch 1, with the shapes that the model records."""
    shapes = {
        name: [dim if isinstance(dim, int) else 1 for dim in t.shape or ()] for name, t in ir.tensors(model).items()
    }
    return channels.analyze(model).shares(model, shapes)


def causes(found: channels.Shares) -> dict[str, tuple[float, float]]:
    return {each.reason: (round(each.share.macs, 4), round(each.share.params, 4)) for each in found.kept}


def test_a_chain_by_hand(net):
    """Weights 4x3, 5x4 and biases 4, 5; one of four channels stays, and the five outputs do."""
    n = net()
    hidden = n.conv(n.input("N", 3, 2, 2), 4, 3, name="first")
    found = shares(n.model(n.conv(hidden, 5, 4, name="last")))
    assert (found.macs, found.params) == (4 * 32, 41)
    assert found.prunable == pytest.approx((1 - 32 / 128, 1 - (3 + 1 + 5 + 5) / 41))
    assert found.groups == {"first:0": pytest.approx((0.75, 27 / 41))}
    assert found.least == pytest.approx((0, 1 / 41))
    assert causes(found) == {"graph output t1": (0.1562, 0.2439), "graph input x": (0.0938, 0.0732)}
    assert [(each.axes, each.example) for each in found.kept] == [(2, "last:0"), (1, "first:1")]


def test_two_causes_share_what_both_keep(net):
    """Input and output are fixed: each is half of the reason for what stays."""
    n = net()
    found = shares(n.model(n.op("MatMul", n.input("N", 3), n.weight(3, 5, name="w"))))
    assert found.prunable == (0, 0)
    assert causes(found) == {"graph input x": (0.5, 0.5), "graph output t0": (0.5, 0.5)}


def test_an_unknown_operator_appears_with_its_weights(net):
    n = net()
    hidden = n.op("Relu", n.conv(n.input("N", 3, 2, 2), 4, 3, name="first"))
    odd = n.op("Odd", n.conv(hidden, 4, 4, name="second"), n.weight(8, 8, name="inner"), domain="com.example")
    n.op("Odd", "x", domain="com.example")
    proto = n.proto(odd)
    proto.graph.value_info.append(helper.make_tensor_value_info(odd, 1, ["N", 4, 2, 2]))
    found = shares(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))
    (unknown,) = [each for each in found.kept if each.reason == "no rule for com.example.Odd"]
    assert unknown.nodes == 2
    assert unknown.axes == 3
    assert unknown.example == "second:0"
    assert unknown.share.params == pytest.approx((64 + 4 * 1 + 4) / found.params)


def test_a_node_without_weights_and_products_is_listed_too(net):
    n = net()
    hidden = n.op("Relu", n.conv(n.input("N", 3, 2, 2), 4, 3, name="first"))
    n.op("NonZero", hidden)
    odd = n.op("Odd", "x", domain="com.example", out="odd")
    proto = n.proto(n.conv(hidden, 5, 4, name="last"), odd)
    del proto.graph.output[1].type.tensor_type.shape.dim[:]
    found = shares(ir.from_proto(proto))
    (unknown,) = [each for each in found.kept if "Odd" in each.reason]
    assert (unknown.share, unknown.nodes, unknown.example) == ((0, 0), 1, "odd")


def test_depthwise_and_attention_products_count_to_the_groups(net):
    n = net()
    x = n.conv(n.input("N", 3, 4, 4), 8, 3, name="first")
    x = n.conv(x, 8, 8, 3, name="deep", group=8)
    found = shares(n.model(n.conv(x, 5, 8, name="last")))
    assert set(causes(found)) == {"graph input x", "graph output t2"}
    assert found.least.macs == pytest.approx(16 * 9 / found.macs)


def test_no_macs_without_shapes(net):
    n = net()
    model = n.model(n.conv(n.conv(n.input("N", 3, 2, 2), 4, 3), 5, 4))
    found = channels.analyze(model).shares(model, {})
    assert found.macs == 0
    assert found.prunable.macs == 0
    assert 0 < found.prunable.params < 1
