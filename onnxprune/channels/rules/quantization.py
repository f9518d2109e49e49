"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: element by element, scales per tensor or per channel."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, integer, present, rank, ref, size
from onnxprune.channels.links import Barrier, Inexact, Link, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through

MICROSOFT = "com.microsoft"


@op_rule("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT)
@op_rule("QuantizeLinear", "DequantizeLinear")
def quantize(node: gs.Node, opset: int) -> Iterator[Link]:
    """A vector of scales belongs to `axis` (since 13); blocked scales (since 21) fix the blocked axis."""
    x, y = node.inputs[0], node.outputs[0]
    parameters = [p for p in (present(node, 1), present(node, 2)) if p is not None]
    if any(rank(p) > 1 for p in parameters) or integer(node, "block_size", 0):
        raise Barrier(f"{node.op} is blocked: {integer(node, 'block_size', 0)} elements share a scale")
    yield from pass_through(x, y)
    for parameter in parameters:
        if rank(parameter) == 1 and size(parameter, 0) != 1:
            yield Tie(ref(x, axis_of(node, x, 1)), ref(parameter, 0))


@op_rule("DynamicQuantizeLinear")
def quantize_dynamically(node: gs.Node, opset: int) -> Iterator[Link]:
    """The scale comes from the extremes of the whole tensor, so whatever leaves it may change the scale."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0])
    yield from over_all_elements(x)


def over_all_elements(x: gs.Tensor) -> Iterator[Link]:
    """A number is computed from all elements of the tensor: no axis leaves without changing it."""
    for axis in range(rank(x)):
        if size(x, axis) is not None:
            yield Inexact(ref(x, axis))


def one_scale(*parameters: gs.Tensor | None) -> None:
    """Barrier unless each of these scales and zero points is a single number, or left out."""
    for parameter in parameters:
        if parameter is not None and any(dim != 1 for dim in parameter.shape):
            raise Barrier(f"{parameter.name} is not one number for the whole tensor")


def scales_of(tensor: gs.Tensor, axis: int, *parameters: gs.Tensor | None) -> Iterator[Link]:
    """Scales and zero points of a tensor, one number or a vector along `axis` (leading axes of size 1 aside)."""
    for parameter in parameters:
        if parameter is None or rank(parameter) == 0 or all(dim == 1 for dim in parameter.shape):
            continue
        if any(dim != 1 for dim in parameter.shape[:-1]):
            raise Barrier(f"{parameter.name} is not a vector")
        yield Tie(ref(tensor, axis), ref(parameter, -1))
