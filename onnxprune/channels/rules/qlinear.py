"""Operators of com.microsoft on 8-bit tensors that carry their own scales: sums, pools, activations, Concat."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import attribute_ints, axis_of, from_front, integer, present, rank, ref
from onnxprune.channels.links import Link, Pin
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import broadcast, pass_through
from onnxprune.channels.rules.joining import runs
from onnxprune.channels.rules.quantization import MICROSOFT, one_scale
from onnxprune.channels.rules.reduction import unreduced


@op_rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(node: gs.Node, opset: int) -> Iterator[Link]:
    """a, its scale and zero point; b and its own; scale and zero point of the result."""
    one_scale(*(present(node, slot) for slot in (1, 2, 4, 5, 6, 7)))
    yield from broadcast([node.inputs[0], node.inputs[3]], node.outputs[0])


@op_rule("QLinearWhere", domain=MICROSOFT)
def qlinear_where(node: gs.Node, opset: int) -> Iterator[Link]:
    one_scale(*(present(node, slot) for slot in (2, 3, 5, 6, 7, 8)))
    yield from broadcast([node.inputs[0], node.inputs[1], node.inputs[4]], node.outputs[0])


@op_rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def qlinear_unary(node: gs.Node, opset: int) -> Iterator[Link]:
    """x, its scale and zero point, scale and zero point of the result."""
    one_scale(*(present(node, slot) for slot in (1, 2, 3, 4)))
    yield from pass_through(node.inputs[0], node.outputs[0])


@op_rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(node: gs.Node, opset: int) -> Iterator[Link]:
    """Spatial axes keep their size. Channels are the second axis, or the last one with `channels_last`."""
    x = node.inputs[0]
    one_scale(*(present(node, slot) for slot in (1, 2, 3, 4)))
    yield from pass_through(x, node.outputs[0], (0, rank(x) - 1 if integer(node, "channels_last", 0) else 1))


@op_rule("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(node: gs.Node, opset: int) -> Iterator[Link]:
    """Normalises in 8 bits, over one axis since opset 13 and over all from `axis` on before: these stay."""
    x, y = node.inputs[0], node.outputs[0]
    axis, flat = axis_of(node, x, -1), integer(node, "opset", 0) < 13
    normalised = range(axis, rank(x)) if flat else [axis]
    yield from pass_through(x, y, (a for a in range(rank(x)) if a not in normalised))
    for each in normalised:
        for tensor in (x, y):
            yield Pin(ref(tensor, each), "a softmax in 8 bits has no element that counts as nothing")


@op_rule("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(node: gs.Node, opset: int) -> Iterator[Link]:
    """The mean over `axes` (all where none are given) is rounded to 8 bits: the reduced axes keep their size."""
    x = node.inputs[0]
    axes = attribute_ints(node, "axes") or list(range(rank(x)))
    yield from unreduced(node, {from_front(axis, rank(x)) for axis in axes})


@op_rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: gs.Node, opset: int) -> Iterator[Link]:
    """Scale and zero point of the result, then each part with its own two."""
    y, parts = node.outputs[0], list(node.inputs[2::3])
    one_scale(*(tensor for slot, tensor in enumerate(node.inputs) if slot < 2 or slot % 3 != 2))
    yield from runs(y, parts, axis_of(node, y, 0))
