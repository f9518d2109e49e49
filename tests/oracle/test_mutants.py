"""Broken rules must be noticed: the oracle is only worth what it catches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graph_builder import SeededChooser
from proving import expect_notice
from random_graphs import random_model

from onnxprune.channels import links, registry

Change = Callable[[links.Link], Iterator[links.Link]]


def _without_pins(link: links.Link) -> Iterator[links.Link]:
    if not isinstance(link, links.Pin):
        yield link


def _reversed_index(link: links.Link) -> Iterator[links.Link]:
    if isinstance(link, links.Tie) and link.index is not None and len(link.index) > 1:
        link = links.Tie(link.a, link.b, link.index[::-1].copy())
    yield link


def _shifted_index(link: links.Link) -> Iterator[links.Link]:
    if isinstance(link, links.Tie) and link.index is not None and (link.index >= 0).all() and link.index.size:
        link = links.Tie(link.a, link.b, np.roll(link.index, 1))
    yield link


def _unary(node: gs.Node, opset: int) -> Iterator[links.Link]:
    """Looks through a node as if it worked element by element."""
    x, y = node.inputs[0], node.outputs[0]
    for axis in range(len(x.shape)):
        yield links.Tie(links.AxisRef(x.name, (axis,)), links.AxisRef(y.name, (axis,)))


MUTANTS: dict[str, Change | None] = {
    "LRN": _without_pins,
    "Split": _shifted_index,
    "Slice": _shifted_index,
    "Gather": _shifted_index,
    "Pad": _reversed_index,
    "DepthToSpace": _shifted_index,
    "SpaceToDepth": _shifted_index,
    "CumSum": None,
    "GRU": _shifted_index,
    "Col2Im": _shifted_index,
    "Concat": _shifted_index,
    "Conv": _shifted_index,
}


def _mutate(monkeypatch: pytest.MonkeyPatch, op: str, change: Change | None) -> None:
    entries = registry._RULES.get(("", op), [])

    def broken(rule: Any) -> Any:
        return lambda node, opset: (new for link in rule(node, opset) for new in change(link))  # type: ignore[misc]

    mutated = [e._replace(rule=broken(e.rule)) for e in entries] if change else [registry._Entry(1, None, _unary)]
    monkeypatch.setitem(registry._RULES, ("", op), mutated)


@pytest.mark.parametrize("op", MUTANTS)
def test_broken_rule_is_noticed(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    _mutate(monkeypatch, op, MUTANTS[op])
    expect_notice(op, lambda seed: random_model(SeededChooser(seed)))
