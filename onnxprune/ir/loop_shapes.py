"""Sizes of the states of a Loop, which ONNX inference leaves open because they may change from trip to trip.

A size is kept by induction: it is that of the initial value, and where the body is given it, the body returns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx
import onnx_graphsurgeon as gs

from onnxprune.errors import ModelError
from onnxprune.ir import types
from onnxprune.ir.bodies import graphs
from onnxprune.ir.model import Body, Model
from onnxprune.ir.query import domain
from onnxprune.ir.types import Dim, TensorType

Infer = Callable[[Body], Mapping[str, onnx.ValueInfoProto]]
_FIRST_STATE = 2  # in the inputs of a Loop: behind trip count and condition; in those of its body: number and condition


def loop_types(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
    """Types of the final states of a Loop, as far as the initial ones have the sizes that the body returns.

    Trips may be none, so the outputs are either the initial values or what the body returned.
    """
    body = node.attrs.get("body")
    if not isinstance(body, Body):
        return []
    found: list[TensorType | None] = []
    for start, end in zip(inputs[_FIRST_STATE:], body.graph.outputs[1:], strict=False):
        sizes = None if start is None or end.shape is None else _common(start.shape, end.shape)
        found.append(None if start is None or sizes is None else TensorType(start.dtype, sizes))
    return found


def known_sizes(model: Model) -> list[list[Dim] | None]:
    """What is known about the states and outputs of all Loops; empty where there is none."""
    return [
        None if tensor.shape is None else list(tensor.shape)
        for node, body in _loops(model)
        for tensor in (*body.graph.inputs[: body.formal], *node.outputs)
    ]


def declare_kept_sizes(model: Model, infer: Infer) -> None:
    """Gives the states of all Loops the sizes that every trip keeps. `infer` finds the types in a body."""
    for node, body in _loops(model):
        _declare(node, body, infer)


def _loops(model: Model) -> list[tuple[gs.Node, Body]]:
    nodes = [node for graph in graphs(model) for node in graph.graph.nodes if node.op == "Loop" and not domain(node)]
    return [(node, body) for node in nodes if isinstance(body := node.attrs.get("body"), Body)]


def _declare(node: gs.Node, body: Body, infer: Infer) -> None:
    states, starts = body.graph.inputs[_FIRST_STATE : body.formal], node.inputs[_FIRST_STATE:]
    ends = body.graph.outputs[1 : 1 + len(states)]
    before = [state.shape for state in states]
    for state, start in zip(states, starts, strict=True):
        state.shape = _refined(state.shape, start.shape)
    if [state.shape for state in states] == before:
        return
    try:
        for _ in range(1 + sum(len(state.shape or ()) for state in states)):  # each round gives up a size
            weaker = list(
                _confirmed(before, [state.shape for state in states], [end.name for end in ends], infer(body))
            )
            if weaker == [state.shape for state in states]:
                break
            for state, shape in zip(states, weaker, strict=True):
                state.shape = shape
    except ModelError:
        weaker = before
    for state, shape in zip(states, weaker, strict=True):
        state.shape = shape


def _confirmed(
    declared: Sequence[list[Dim] | None],
    assumed: Sequence[list[Dim] | None],
    ends: Sequence[str],
    known: Mapping[str, onnx.ValueInfoProto],
) -> Iterator[list[Dim] | None]:
    """What is left of assumed shapes when the body returns these: sizes that the author declared stay."""
    for old, shape, name in zip(declared, assumed, ends, strict=True):
        returned = types.tensor_type(known[name])[1] if name in known else None
        if shape is None or shape == old:
            yield shape
        elif returned is None or len(returned) != len(shape):
            yield old
        else:
            own = old if old is not None else [None] * len(shape)
            yield [dim if dim in (end, mine) else mine for dim, end, mine in zip(shape, returned, own, strict=True)]


def _refined(declared: list[Dim] | None, start: list[Dim] | None) -> list[Dim] | None:
    """The declared shape with numbers of the initial value where it has none."""
    if start is None or (declared is not None and len(declared) != len(start)):
        return declared
    own = declared if declared is not None else [None] * len(start)
    return [
        new if isinstance(new, int) and not isinstance(old, int) else old for old, new in zip(own, start, strict=True)
    ]


def _common(one: Sequence[Dim], other: Sequence[Dim]) -> list[Dim] | None:
    if len(one) != len(other):
        return None
    return [a if isinstance(a, int) and a == b else None for a, b in zip(one, other, strict=True)]
