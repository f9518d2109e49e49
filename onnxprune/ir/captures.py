"""Outer tensors that subgraph attributes use by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import AttributeProto


def of_nodes(nodes: Iterable[Any]) -> set[str]:
    """Names of outer tensors used inside the subgraphs of these gs.Nodes."""
    return {name for node in nodes for graph in subgraphs(node) for name in of_graph(graph)}


def subgraphs(node: Any) -> Iterator[onnx.GraphProto]:
    """The GraphProtos that a gs.Node carries as attributes."""
    for value in node.attrs.values():
        if isinstance(value, AttributeProto):
            yield from _graphs(value)


def of_graph(graph: onnx.GraphProto) -> set[str]:
    """Names that a GraphProto uses but does not define, nested subgraphs included."""
    defined = {info.name for info in graph.input}
    defined.update(tensor.name for tensor in graph.initializer)
    defined.update(tensor.values.name for tensor in graph.sparse_initializer)
    used: set[str] = set()
    for node in graph.node:
        used.update(name for name in node.input if name not in defined)
        for attribute in node.attribute:
            for inner in _graphs(attribute):
                used.update(of_graph(inner) - defined)
        defined.update(node.output)
    used.update(info.name for info in graph.output if info.name not in defined)
    return used - {""}


def _graphs(attribute: AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.type == AttributeProto.GRAPH or attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs
