"""Reduce* and Softmax: an axis enters a formula that holds the number of its elements."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import axis_of, from_front, integer, parameter, rank, ref, size
from onnxprune.channels.links import Barrier, Inexact, Link, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through

REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare"),
)


@op_rule(*REDUCTIONS)
def reduce(node: gs.Node, opset: int) -> Iterator[Link]:
    """Axes: attribute or constant input by opset; none of them means all, unless noop_with_empty_axes."""
    x = node.inputs[0]
    axes = parameter(node, "axes", 1)
    if not axes:
        axes = [] if integer(node, "noop_with_empty_axes", 0) else list(range(rank(x)))
    reduced = {from_front(axis, rank(x)) for axis in axes}
    yield from unreduced(node, reduced)
    for axis in sorted(reduced):
        if size(x, axis) is not None:
            yield Inexact(ref(x, axis))


def unreduced(node: gs.Node, reduced: set[int]) -> Iterator[Link]:
    """Axes that a reduction leaves keep their order; reduced ones stay with size 1 where `keepdims` says so."""
    x, y = node.inputs[0], node.outputs[0]
    keep = bool(integer(node, "keepdims", 1))
    if rank(y) != (rank(x) if keep else rank(x) - len(reduced)):
        raise Barrier(f"{node.op} over {sorted(reduced)} does not fit the rank of {y.name}")
    out = 0
    for axis in range(rank(x)):
        if axis not in reduced and (size(x, axis) is not None or size(y, out) is not None):
            yield Tie(ref(x, axis), ref(y, out))
        out += keep or axis not in reduced


@op_rule("LpNormalization")
@op_rule("Hardmax", "LogSoftmax", "Softmax", since=13)
def over_one_axis(node: gs.Node, opset: int) -> Iterator[Link]:
    x = node.inputs[0]
    axis = axis_of(node, x, -1)
    if axis == rank(x):
        raise Barrier(f"axis {axis} is outside of {x.name}")
    yield from pass_through(x, node.outputs[0])
    if size(x, axis) is not None:
        yield Inexact(ref(x, axis))


@op_rule("Hardmax", "LogSoftmax", "Softmax", until=12)
def softmax_flat(node: gs.Node, opset: int) -> Iterator[Link]:
    """Before opset 13 all axes from `axis` on are normalised as one."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0])
    for axis in range(axis_of(node, x, 1), rank(x)):
        if size(x, axis) is not None:
            yield Inexact(ref(x, axis))
