"""Einsum: each letter is one axis of several tensors, summed away where the output does not have it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.facts import is_weight, rank, ref, size
from onnxprune.channels.links import AxisRef, Barrier, Contract, Inexact, Link, Produce, Role, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import spanning

Axis = tuple[gs.Tensor, int]


@op_rule("Einsum", since=12)
def einsum(node: gs.Node, opset: int) -> Iterator[Link]:
    """A letter in weight and output is produced, a letter that is summed is contracted.

    Between two activations a summed letter is a head dimension, and a letter that both share with the output a head:
    the same as in MatMul. Axes under `...` broadcast.
    """
    terms, result = _terms(node)
    y = node.outputs[0]
    held: dict[str, list[Axis]] = {}
    for tensor, term in zip(node.inputs, terms, strict=True):
        for letter, axis in _axes(term, tensor).items():
            held.setdefault(letter, []).append((tensor, axis))
    out = _axes(result, y)
    weights = {tensor.name for tensor in node.inputs if is_weight(tensor)}
    for letter, places in held.items():
        if letter.startswith("."):
            for tensor, axis in places:
                yield from spanning(tensor, axis, y, out[letter])
        else:
            kept = [(y, out[letter])] if letter in out else []
            full = _spanning(places)
            yield from _same([*full, *kept])
            yield from _meaning(full, bool(kept), weights, len(terms))


def _terms(node: gs.Node) -> tuple[list[str], str]:
    """The terms of the inputs and of the output; an implicit output has the letters that occur once, sorted."""
    equation = str(ir.attribute(node, "equation", "")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if any(len(set(letters)) < len(letters) for letters in (t.replace("...", "") for t in (*terms, result))):
        raise Barrier(f"a letter occurs twice in one term of {equation}")
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        result = ("..." if "..." in left else "") + "".join(sorted(c for c in letters if letters.count(c) == 1))
    if any("..." in term for term in terms) and "..." not in result:
        raise Barrier(f"{equation} sums over axes that have no letter")
    return terms, result


def _axes(term: str, tensor: gs.Tensor) -> dict[str, int]:
    """Letter to axis; the axes under an ellipsis are called .1, .2, ... from the last one on."""
    before, dots, after = term.partition("...")
    spread = rank(tensor) - len(before) - len(after)
    if spread < 0 or (spread and not dots):
        raise Barrier(f"{term} does not fit the rank of {tensor.name}")
    labels = [*before, *(f".{place}" for place in range(spread, 0, -1)), *after]
    return {label: axis for axis, label in enumerate(labels)}


def _spanning(places: list[Axis]) -> list[Axis]:
    """Without the axes of size 1 that are broadcast among longer ones: those keep their size."""
    longest = max((length for place in places if (length := size(*place)) is not None), default=1)
    return [place for place in places if size(*place) != 1 or longest == 1]


def _same(places: list[Axis]) -> Iterator[Link]:
    """All axes of a letter lose elements together."""
    if any(size(*place) is not None for place in places):
        for place in places[1:]:
            yield Tie(_ref(places[0]), _ref(place))


def _meaning(places: list[Axis], kept: bool, weights: set[str], terms: int) -> Iterator[Link]:
    """What the letter does to the axes of the inputs: makes outputs, is batched over, is summed away."""
    static = [place for place in places if size(*place) is not None]
    inside = [place for place in static if place[0].name in weights]
    alone = len(places) == 1
    if kept:
        if inside and alone:
            yield Produce(_ref(inside[0]), "neuron")
        elif terms > 1 and not weights:
            yield from (Role(_ref(place), "head_dim" if alone else "head") for place in static)
    elif alone:  # a plain sum, as in ReduceSum
        yield from (Inexact(_ref(place)) for place in static if not inside)
    else:
        if len(inside) == len(places):  # the rank of a factored weight
            yield Produce(_ref(inside.pop(0)), "neuron")
        yield from (Contract(_ref(place)) for place in inside or static[-1:])
        if not weights:
            yield from (Role(_ref(place), "head_dim") for place in static)


def _ref(place: Axis) -> AxisRef:
    return ref(place[0], place[1])
