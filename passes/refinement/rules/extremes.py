"""Largest and smallest values: the gradient goes to where they were, to each place of a tie."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from passes.refinement.rules.arithmetic import kept_shape
from passes.refinement.tape import Gradients, Rule, Tape


def pick(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Max and Min of tensors, with broadcasting."""
    shape, y = tape.shape(node.outputs[0]), tape.value(node.outputs[0])
    return {
        place: tape.unbroadcast(tape.positive(tape.op("Equal", tape.value(tensor), y), dy), shape, tape.shape(tensor))
        for place, tensor in enumerate(node.inputs)
        if tape.wants(tensor)
    }


def along_axes(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """ReduceMax and ReduceMin."""
    return _spread(tape, node, dy, kept_shape(tape, node))


def everywhere(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """GlobalMaxPool."""
    shape = tape.shape(node.inputs[0])
    return _spread(tape, node, dy, [*shape[:2], *[1] * (len(shape) - 2)])


def _spread(tape: Tape, node: gs.Node, dy: str, kept: Sequence[int]) -> Gradients:
    """``kept``: the shape of the result with axes of one element where values were compared."""
    places = tape.op("Equal", tape.value(node.inputs[0]), tape.reshape(tape.value(node.outputs[0]), kept))
    return {0: tape.positive(places, tape.reshape(dy, kept))}


RULES: dict[str, Rule] = {
    "GlobalMaxPool": everywhere,
    "Max": pick,
    "Min": pick,
    "ReduceMax": along_axes,
    "ReduceMin": along_axes,
}
