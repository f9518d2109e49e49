"""Activations of com.microsoft, with the sum that was fused in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.facts import output, rank, ref, static
from onnxprune.channels.links import Link, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import broadcast, pass_through

MICROSOFT = "com.microsoft"


@op_rule("BiasAdd", "BiasGelu", "FastGelu", "Gelu", "QuickGelu", domain=MICROSOFT)
def activation(node: gs.Node, opset: int) -> Iterator[Link]:
    """x, then a bias over the last axis, then (BiasAdd) a tensor of x's shape."""
    yield from broadcast([x for x in node.inputs if x.name], node.outputs[0])


@op_rule("BiasDropout", domain=MICROSOFT)
def bias_dropout(node: gs.Node, opset: int) -> Iterator[Link]:
    """At inference dropout(data + bias) + residual is the sum; ratio and training_mode are scalars."""
    y, mask = node.outputs[0], output(node, 1)
    yield from broadcast([x for x in node.inputs[:3] if x.name], y)
    if mask is not None:
        yield from pass_through(y, mask)


@op_rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(node: gs.Node, opset: int) -> Iterator[Link]:
    """x + bias in two halves, the first times the Gelu of the second: element j needs elements j and j + D/2."""
    x, bias, y = node.inputs[0], node.inputs[1], node.outputs[0]
    last = rank(x) - 1
    yield from pass_through(x, y, range(last))
    yield Tie(ref(x, last), ref(bias, 0))
    yield Tie(ref(y, last), ref(x, last), np.arange(static(x, last)) % static(y, last))
