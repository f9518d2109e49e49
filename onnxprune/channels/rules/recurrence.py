"""LSTM, GRU and RNN: the input size is summed away, hidden units are made by every gate and fed back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, is_weight, output, present, ref, size, static
from onnxprune.channels.links import Barrier, Contract, Link, Produce, Tie
from onnxprune.channels.registry import op_rule, resize_hook

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3


@op_rule(*GATES)
def recurrent(node: gs.Node, opset: int) -> Iterator[Link]:
    """W is (directions, gates * hidden, input), R (directions, gates * hidden, hidden).

    Unit j is row j of each gate in W, R, both halves of B and the peepholes, column j of R, and element j of the state.
    Both directions have one hidden size and lie in the same tensors, so unit j leaves both. Time keeps its size.
    """
    x, w, r = node.inputs[:3]
    hidden, gates = static(r, 2), GATES[node.op]
    for weight in (w, r):
        if not is_weight(weight):
            raise Barrier(f"its weight {weight.name} is not constant")
        if static(weight, 1) != gates * hidden:
            raise Barrier(f"{weight.name}:1 of {weight.shape[1]} does not fit {gates} gates of {hidden} units")
    yield Tie(ref(w, 2), ref(x, 2))
    yield Contract(ref(w, 2))
    yield Contract(ref(r, 2))
    for weight in (w, r):
        yield Produce(ref(weight, 1), "hidden")
    stacked = [(w, gates), (r, gates), (present(node, 3), 2 * gates), (present(node, 7), PEEPHOLES)]
    for tensor, copies in stacked:
        if tensor is not None:
            yield Tie(ref(r, 2), ref(tensor, 1), np.arange(copies * hidden) % hidden)
    yield from _states(node)


def _states(node: gs.Node) -> Iterator[Link]:
    """Y, the first and the last states: hidden units are their last axis, the batch passes from X to all of them."""
    x, r = node.inputs[0], node.inputs[2]
    layout = integer(node, "layout", 0)
    batch = 0 if layout else 1
    states = [t for t in (present(node, 5), present(node, 6), output(node, 1), output(node, 2)) if t is not None]
    followers = [(state, batch) for state in states]
    y, lengths = output(node, 0), present(node, 4)
    if y is not None:
        followers.append((y, 0 if layout else 2))
        states.append(y)
    if lengths is not None:
        followers.append((lengths, 0))
    for state in states:
        yield Tie(ref(r, 2), ref(state, -1))
    for tensor, axis in followers:
        if size(x, batch) is not None or size(tensor, axis) is not None:
            yield Tie(ref(x, batch), ref(tensor, axis))


@resize_hook(*GATES)
def resize_recurrent(node: gs.Node, opset: int, cut: Cut) -> None:
    if "hidden_size" in node.attrs:
        node.attrs["hidden_size"] = len(cut.kept(node.inputs[2], 2))
