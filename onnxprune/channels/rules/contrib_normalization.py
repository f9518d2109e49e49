"""Normalisations of com.microsoft. ONNX Runtime puts SimplifiedLayerNormalization into the standard domain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, integer, output, present, rank, ref, size, static
from onnxprune.channels.links import Barrier, Inexact, Link, Pin, Produce, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import broadcast, pass_through

MICROSOFT = "com.microsoft"


@op_rule("SimplifiedLayerNormalization")
@op_rule("SimplifiedLayerNormalization", domain=MICROSOFT)
def simplified_layer_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Divides by the root mean square over all axes from `axis` on."""
    x = node.inputs[0]
    first = axis_of(node, x, -1)
    yield from pass_through(x, node.outputs[0])
    yield from broadcast(node.inputs[1:2], x)
    statistic = output(node, 1)
    if statistic is not None:
        yield from pass_through(x, statistic, range(first))
    yield from _inexact(x, first)


@op_rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Normalises input + skip + bias over the last axis; the fourth output is that sum."""
    x, y = node.inputs[0], node.outputs[0]
    yield from pass_through(x, y)
    yield from broadcast([p for p in node.inputs[1:] if p.name], y)
    for slot in (1, 2):
        statistic = output(node, slot)
        if statistic is not None:
            yield from pass_through(x, statistic, range(rank(x) - 1))
    total = output(node, 3)
    if total is not None:
        yield from pass_through(x, total)
    yield from _inexact(x, rank(x) - 1)


@op_rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(node: gs.Node, opset: int) -> Iterator[Link]:
    """Sums rows of up to three tables and normalises them; the vocabularies stay."""
    y = node.outputs[0]
    for slot in (2, 3, 4):
        table = present(node, slot)
        if table is not None:
            yield Tie(ref(table, 1), ref(y, 2))
            yield Produce(ref(table, 1), "embedding")
    for slot in (5, 6):
        yield Tie(ref(node.inputs[slot], 0), ref(y, 2))
    total = output(node, 2)
    if total is not None:
        yield from pass_through(y, total)
    yield from _inexact(y, 2)


@op_rule("GroupNorm", "SkipGroupNorm", domain=MICROSOFT)
def group_norm(node: gs.Node, opset: int) -> Iterator[Link]:
    """Channels last by default; the same offset leaves every group. SkipGroupNorm sums x, skip and bias first."""
    x, y = node.inputs[0], node.outputs[0]
    axis = rank(x) - 1 if integer(node, "channels_last", 1) else 1
    channels, groups = static(x, axis), integer(node, "groups", 0)
    if groups < 1 or channels % groups:
        raise Barrier(f"groups={groups} does not fit {channels} channels")
    yield from pass_through(x, y, (0, axis))
    for parameter in (node.inputs[1], node.inputs[2], present(node, 4)):
        if parameter is not None:
            yield Tie(ref(x, axis), ref(parameter, 0))
    skip, total = present(node, 3), output(node, 1)
    if skip is not None:
        yield Tie(ref(x, axis), ref(skip, axis if rank(skip) == rank(x) else 1))
    if total is not None:
        yield from pass_through(x, total, (0, axis))
    if groups == channels:
        yield Pin(ref(x, axis), "each channel is a group of its own")
    elif groups > 1:
        yield Tie(ref(x, axis), ref(x, axis), np.arange(channels) % (channels // groups))
    yield Inexact(ref(x, axis))


def _inexact(x: gs.Tensor, first: int) -> Iterator[Link]:
    for axis in range(first, rank(x)):
        if size(x, axis) is not None:
            yield Inexact(ref(x, axis))
