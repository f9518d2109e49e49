"""Functions of several tensors, element by element, with broadcasting; and reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.refinement.tape import Gradients, Rule, Tape, given


def _sides(tape: Tape, node: gs.Node, gradients: Sequence[str]) -> Gradients:
    """Gradients in the shape of the output, an input each, in the shapes of the inputs."""
    shape = tape.shape(node.outputs[0])
    return {
        place: tape.unbroadcast(gradient, shape, tape.shape(node.inputs[place]))
        for place, gradient in enumerate(gradients)
        if tape.wants(node.inputs[place])
    }


def add(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    return _sides(tape, node, [dy] * len(node.inputs))


def subtract(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    return _sides(tape, node, [dy, tape.op("Neg", dy)])


def multiply(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    a, b = (tape.value(tensor) for tensor in node.inputs)
    return _sides(tape, node, [tape.op("Mul", dy, b), tape.op("Mul", dy, a)])


def divide(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """a / b: dy / b, and -dy y / b."""
    b, y = tape.value(node.inputs[1]), tape.value(node.outputs[0])
    left = tape.op("Div", dy, b)
    return _sides(tape, node, [left, tape.op("Neg", tape.op("Mul", left, y))])


def choose(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Where: each side gets what was taken from it."""
    condition = tape.value(node.inputs[0])
    zero = tape.constant(0.0)
    shape = tape.shape(node.outputs[0])
    sides = {1: tape.op("Where", condition, dy, zero), 2: tape.op("Where", condition, zero, dy)}
    return {
        place: tape.unbroadcast(gradient, shape, tape.shape(node.inputs[place]))
        for place, gradient in sides.items()
        if tape.wants(node.inputs[place])
    }


def mean(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    return _reduced(tape, node, dy, average=True)


def total(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    return _reduced(tape, node, dy, average=False)


def _reduced(tape: Tape, node: gs.Node, dy: str, *, average: bool) -> Gradients:
    shape, kept = tape.shape(node.inputs[0]), kept_shape(tape, node)
    wide = tape.op("Expand", tape.reshape(dy, kept), tape.constant(list(shape)))
    if average:
        wide = tape.op("Mul", wide, tape.constant(math.prod(kept) / math.prod(shape)))
    return {0: wide}


def kept_shape(tape: Tape, node: gs.Node) -> list[int]:
    """The shape of a reduction's input with one element along the axes that it takes together."""
    shape = tape.shape(node.inputs[0])
    axes = _axes(node, len(shape))
    return [1 if axis in axes else size for axis, size in enumerate(shape)]


def _axes(node: gs.Node, rank: int) -> set[int]:
    """The axes of a reduction, from its attribute or its second input."""
    axes = given(node, "axes", 1)
    if axes is None or not len(axes):
        return set() if ir.attribute(node, "noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in axes}


def squares(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """ReduceSumSquare: 2 x."""
    spread = _reduced(tape, node, dy, average=False)[0]
    return {0: tape.op("Mul", spread, tape.op("Mul", tape.value(node.inputs[0]), tape.constant(2.0)))}


def norm(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """ReduceL2: x / y."""
    share = tape.op("Div", dy, tape.value(node.outputs[0]))
    return {0: tape.op("Mul", _reduced(tape, node, share, average=False)[0], tape.value(node.inputs[0]))}


RULES: dict[str, Rule] = {
    "Add": add,
    "Div": divide,
    "Mul": multiply,
    "ReduceL2": norm,
    "ReduceMean": mean,
    "ReduceSum": total,
    "ReduceSumSquare": squares,
    "Sub": subtract,
    "Sum": add,
    "Where": choose,
}
