"""Operators that carry state along a sequence: TensorScatter (a key or value cache) and CausalConvWithState."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, output, present, rank, ref
from onnxprune.channels.links import Link, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through


@op_rule("TensorScatter", since=24)
def tensor_scatter(node: gs.Node, opset: int) -> Iterator[Link]:
    """Writes an update into a cache at positions of the sequence `axis`, which stays; each sample has its position."""
    past, update, y = node.inputs[0], node.inputs[1], node.outputs[0]
    places = present(node, 2)
    if places is not None:
        yield from pass_through(past, places, (0,))
    others = [axis for axis in range(rank(past)) if axis != axis_of(node, past, -2)]
    yield from pass_through(past, y, others)
    yield from pass_through(update, y, others)


@op_rule("CausalConvWithState", since=27)
def causal_convolution(node: gs.Node, opset: int) -> Iterator[Link]:
    """Depthwise over (batch, channels, length): each channel is on its own, its state too."""
    x, w = node.inputs[:2]
    yield Tie(ref(x, 1), ref(w, 0))
    for tensor in (present(node, 3), node.outputs[0], output(node, 1)):
        if tensor is not None:
            yield from pass_through(x, tensor, (0, 1))
    bias = present(node, 2)
    if bias is not None:
        yield Tie(ref(x, 1), ref(bias, 0))
