"""QuantizeLinear and DequantizeLinear: element by element, with scales per tensor or per channel."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, integer, present, rank, ref, size
from onnxprune.channels.links import Barrier, Link, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through


@op_rule("QuantizeLinear", "DequantizeLinear")
def quantize(node: gs.Node, opset: int) -> Iterator[Link]:
    """A vector of scales belongs to `axis` (since 13); blocked scales (since 21) fix the blocked axis."""
    x, y = node.inputs[0], node.outputs[0]
    parameters = [p for p in (present(node, 1), present(node, 2)) if p is not None]
    if any(rank(p) > 1 for p in parameters) or integer(node, "block_size", 0):
        raise Barrier(f"{node.op} is blocked")
    yield from pass_through(x, y)
    for parameter in parameters:
        if rank(parameter) == 1 and size(parameter, 0) != 1:
            yield Tie(ref(x, axis_of(node, x, 1)), ref(parameter, 0))
