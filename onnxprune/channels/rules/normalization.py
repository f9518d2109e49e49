"""Normalisations with learned scale and bias."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, integer, output, present, rank, ref, size
from onnxprune.channels.links import Barrier, Inexact, Link, Pin, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import broadcast, pass_through


@op_rule("BatchNormalization")
def batch_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Scale, bias, mean, variance are per channel, and each channel is on its own. With training statistics (the
    attribute since opset 14, further outputs before) the other axes are in the formula, and keep their size.
    """
    x = node.inputs[0]
    training = integer(node, "training_mode", 0) or any(y.name for y in node.outputs[1:])
    yield from pass_through(x, node.outputs[0], (1,) if training else None)
    for parameter in (*node.inputs[1:], *node.outputs[1:]):
        if parameter.name and rank(parameter) != 1:
            raise Barrier(f"{parameter.name} is not a vector over channels")
        if parameter.name:
            yield Tie(ref(x, 1), ref(parameter, 0))


@op_rule("InstanceNormalization")
def instance_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Statistics run over the axes behind the channels: their size is in the formula. Written as reshapes around this
    operator, GroupNorm folds the channels of a group into them.
    """
    x, y = node.inputs[0], node.outputs[0]
    yield from pass_through(x, y)
    for parameter in node.inputs[1:]:
        yield Tie(ref(x, 1), ref(parameter, 0))
    for axis in range(2, rank(x)):
        if size(x, axis) is not None:
            yield Inexact(ref(x, axis))


@op_rule("LayerNormalization")
def layer_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Normalises over all axes from `axis` on: their size is in the formula. Before opset 17 it is ONNX Runtime's."""
    x = node.inputs[0]
    first = axis_of(node, x, -1)
    yield from pass_through(x, node.outputs[0])
    yield from broadcast([p for p in (present(node, 1), present(node, 2)) if p is not None], x)
    for statistic in (output(node, 1), output(node, 2)):
        if statistic is not None:
            yield from pass_through(x, statistic, range(first))
    for axis in range(first, rank(x)):
        if size(x, axis) is not None:
            yield Inexact(ref(x, axis))


@op_rule("RMSNormalization", since=23)
def rms_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """LayerNormalization without a mean, and without a bias."""
    yield from layer_normalization(node, opset)


@op_rule("LRN")
def lrn(node: gs.Node, opset: int) -> Iterator[Link]:
    """Divides by a sum over neighbouring channels: removing one would shift the neighbourhood."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0])
    yield Pin(ref(x, 1), f"LRN sums over {integer(node, 'size', 0)} neighbouring channels")
