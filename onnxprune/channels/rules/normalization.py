"""Normalisations with learned scale and bias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import (
    attribute_ints,
    axis_of,
    from_front,
    integer,
    output,
    present,
    rank,
    ref,
    size,
    static,
)
from onnxprune.channels.links import Barrier, Inexact, Link, Pin, Tie
from onnxprune.channels.registry import op_rule, resize_hook
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


@op_rule("GroupNormalization", since=18)
def group_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Whole groups leave, so that the statistics of the others stay; of a single group single channels leave.

    Scale and bias are per group before opset 21, per channel since. Statistics run over the spatial axes too.
    """
    x, y = node.inputs[0], node.outputs[0]
    groups, channels = integer(node, "num_groups", 0), static(x, 1)
    if groups < 1 or channels % groups:
        raise Barrier(f"{channels} channels do not make {groups} groups")
    group = np.arange(channels) // (channels // groups)
    yield from pass_through(x, y, (0, 1))
    if groups == 1:
        yield Inexact(ref(x, 1))
    else:
        yield Tie(ref(x, 1), ref(x, 1), group * (channels // groups))
    for parameter in node.inputs[1:]:
        if opset >= 21:
            yield Tie(ref(x, 1), ref(parameter, 0))
        elif groups > 1:
            yield Tie(ref(parameter, 0), ref(x, 1), group)


@resize_hook("GroupNormalization")
def resize_group_normalization(node: gs.Node, opset: int, cut: Cut) -> None:
    x, groups = node.inputs[0], integer(node, "num_groups", 1)
    if groups > 1:
        node.attrs["num_groups"] = groups - len(cut.gone(x, 1)) // (x.shape[1] // groups)


@op_rule("MeanVarianceNormalization")
def mean_variance_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Statistics over `axes`, by default all but the channels."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0])
    axes = attribute_ints(node, "axes")
    for axis in [0, 2, 3] if axes is None else axes:
        if size(x, from_front(axis, rank(x))) is not None:
            yield Inexact(ref(x, axis))


@op_rule("LRN")
def lrn(node: gs.Node, opset: int) -> Iterator[Link]:
    """Divides by a sum over neighbouring channels: removing one would shift the neighbourhood."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0])
    yield Pin(ref(x, 1), f"LRN sums over {integer(node, 'size', 0)} neighbouring channels")
