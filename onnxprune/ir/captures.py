"""Names across the border of subgraph attributes: what they capture from outside, and what they define inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import AttributeProto

from onnxprune.ir.model import Body
from onnxprune.ir.objects import Constant


def of_nodes(nodes: Iterable[Any]) -> set[str]:
    """Names of outer tensors used inside the subgraphs of these gs.Nodes."""
    return {
        name
        for node in nodes
        for graph in subgraphs(node)
        for name in (of_body(graph) if isinstance(graph, Body) else of_graph(graph))
    }


def subgraphs(node: Any) -> Iterator[onnx.GraphProto | Body]:
    """The subgraphs that a gs.Node carries as attributes, opened or not."""
    for value in node.attrs.values():
        if isinstance(value, Body):
            yield value
        elif isinstance(value, AttributeProto):
            yield from _graphs(value)


def of_body(body: Body) -> set[str]:
    """Names that an opened subgraph uses but does not define, nested subgraphs included."""
    used = {tensor.name for node in body.graph.nodes for tensor in node.inputs}
    used.update(tensor.name for tensor in body.graph.outputs)
    return (used | of_nodes(body.graph.nodes)) - defined(body) - {""}


def defined(body: Body) -> set[str]:
    """Names of the tensors that an opened subgraph itself defines: its own inputs, constants, outputs of nodes."""
    names = {tensor.name for tensor in body.graph.inputs[: body.formal]}
    names.update(tensor.name for tensor in body.mentions() if isinstance(tensor, Constant))
    names.update(tensor.name for node in body.graph.nodes for tensor in node.outputs)
    return names - {""}


def inner_names(nodes: Iterable[Any]) -> Iterator[str]:
    """Names that the subgraphs of these gs.Nodes define, nested ones included."""
    for node in nodes:
        for graph in subgraphs(node):
            if isinstance(graph, Body):
                yield from defined(graph)
                yield from inner_names(graph.graph.nodes)
            else:
                yield from written(graph)


def written(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a GraphProto defines, nested subgraphs included."""
    yield from own_names(graph)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _graphs(attribute):
                yield from written(inner)


def own_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a GraphProto itself defines: inputs, initializers, outputs of nodes."""
    for info in (*graph.input, *graph.initializer):
        yield info.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield from filter(None, node.output)


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
