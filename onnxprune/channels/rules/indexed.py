"""Gather and Scatter by tensors of indices: the indexed axes are counted, all others pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.facts import from_front, integer, is_weight, rank, ref, size, static
from onnxprune.channels.links import Barrier, Link, Pin, Produce, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through


@op_rule("GatherElements", since=11)
def gather_elements(node: gs.Node, opset: int) -> Iterator[Link]:
    """y[i, j] = data[i, indices[i, j]] along `axis` 1: on the other axes, element i is element i of all three."""
    data, indices = node.inputs[:2]
    axis = from_front(integer(node, "axis", 0), rank(data))
    yield from pass_through(indices, node.outputs[0])
    yield from _leading(data, indices, axis)
    yield from _counted(node, data, [axis])


@op_rule("Scatter", since=9, until=10)
@op_rule("ScatterElements", since=11)
def scatter_elements(node: gs.Node, opset: int) -> Iterator[Link]:
    """y is data, with y[i, indices[i, j]] = updates[i, j] along `axis` 1."""
    data, indices, updates = node.inputs[:3]
    y = node.outputs[0]
    axis = from_front(integer(node, "axis", 0), rank(data))
    yield from pass_through(data, y, (a for a in range(rank(data)) if a != axis))
    yield from pass_through(indices, updates)
    yield from _leading(data, indices, axis)
    yield from _counted(node, data, [axis])


def _leading(data: gs.Tensor, indices: gs.Tensor, axis: int) -> Iterator[Link]:
    """Beside `axis`, indices may cover only the first elements of the data."""
    for a in range(rank(data)):
        long, short = size(data, a), size(indices, a)
        if a == axis or (long is None and short is None):
            continue
        partial = long is not None and short is not None and short < long
        yield Tie(ref(data, a), ref(indices, a), np.arange(short) if partial and short is not None else None)


@op_rule("GatherND", since=11)
def gather_nd(node: gs.Node, opset: int) -> Iterator[Link]:
    """Batch axes are common; the next `k` axes of the data are indexed, the rest come out behind the indices."""
    data, indices = node.inputs[:2]
    y = node.outputs[0]
    batch, k = integer(node, "batch_dims", 0), static(indices, rank(indices) - 1)
    lead, tail = rank(indices) - 1, rank(data) - batch - k
    if tail < 0 or rank(y) != lead + tail:
        raise Barrier(f"{k} indices do not fit the ranks of {data.name} and {y.name}")
    yield from pass_through(data, indices, range(batch))
    yield from pass_through(indices, y, range(lead))
    for link in _shifted(data, batch + k, y, lead):
        yield link
        if is_weight(data) and not is_weight(indices):
            yield Produce(link.a, "embedding")
    yield from _counted(node, data, range(batch, batch + k))


@op_rule("ScatterND", since=11)
def scatter_nd(node: gs.Node, opset: int) -> Iterator[Link]:
    """The first `k` axes of the data are indexed; the rest lie behind the indices' own axes in the updates."""
    data, indices, updates = node.inputs[:3]
    y = node.outputs[0]
    k, lead = static(indices, rank(indices) - 1), rank(indices) - 1
    if rank(updates) != lead + rank(data) - k:
        raise Barrier(f"{k} indices do not fit the ranks of {data.name} and {updates.name}")
    yield from pass_through(data, y, range(k, rank(data)))
    yield from pass_through(indices, updates, range(lead))
    yield from _shifted(data, k, updates, lead)
    yield from _counted(node, data, range(k))


def _shifted(data: gs.Tensor, start: int, other: gs.Tensor, place: int) -> Iterator[Tie]:
    """The axes of `data` from `start` on are those of `other` from `place` on."""
    for step in range(rank(data) - start):
        if size(data, start + step) is not None or size(other, place + step) is not None:
            yield Tie(ref(data, start + step), ref(other, place + step))


def _counted(node: gs.Node, data: gs.Tensor, axes: list[int] | range) -> Iterator[Link]:
    for axis in axes:
        if size(data, axis) is not None:
            yield Pin(ref(data, axis), f"{node.op} reads it by number")
