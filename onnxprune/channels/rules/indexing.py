"""GatherND and GatherElements: slices or elements picked by tensors of indices, as tables of positions are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, integer, is_weight, rank, ref, size, static
from onnxprune.channels.links import Link, Produce, Tie
from onnxprune.channels.registry import op_rule


@op_rule("GatherND")
def gather_nd(node: gs.Node, opset: int) -> Iterator[Link]:
    """Each tuple of indices picks a slice of the data: the axes that tuples number stay, those of a slice pass."""
    x, indices = node.inputs[:2]
    y = node.outputs[0]
    batched, lead = integer(node, "batch_dims", 0), rank(indices) - 1
    numbered = static(indices, lead)
    for axis in range(lead):
        if size(indices, axis) is not None or size(y, axis) is not None:
            yield Tie(ref(indices, axis), ref(y, axis))
        if axis < batched and (size(x, axis) is not None or size(y, axis) is not None):
            yield Tie(ref(x, axis), ref(y, axis))
    for axis in range(batched + numbered, rank(x)):
        out = lead + axis - batched - numbered
        if size(x, axis) is not None or size(y, out) is not None:
            yield Tie(ref(x, axis), ref(y, out))
            if is_weight(x) and not is_weight(indices):
                yield Produce(ref(x, axis), "embedding")


@op_rule("GatherElements")
def gather_elements(node: gs.Node, opset: int) -> Iterator[Link]:
    """Along one axis elements are picked by number; on all others data, indices and output have the same positions."""
    x, indices = node.inputs[:2]
    y = node.outputs[0]
    picked = axis_of(node, x, 0)
    for axis in range(rank(y)):
        length = size(y, axis)
        if length is not None or size(indices, axis) is not None:
            yield Tie(ref(indices, axis), ref(y, axis))
        if axis != picked and length is not None and size(x, axis) is not None:
            yield Tie(ref(x, axis), ref(y, axis), np.arange(length))
