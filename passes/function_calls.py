"""Which local functions a model calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from onnxprune import ir
from onnxprune.ir.exporter import node_proto

Key = tuple[str, str, str]


def key(proto: onnx.NodeProto | onnx.FunctionProto) -> Key:
    """Return what a function is called by: domain, name, overload."""
    name = proto.op_type if isinstance(proto, onnx.NodeProto) else proto.name
    return ("" if proto.domain == "ai.onnx" else proto.domain, name, proto.overload)


def calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and the nodes of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from calls(graph.node)


def reachable(model: ir.Model) -> set[Key]:
    """Return the keys of all functions that top-level nodes call, directly or not."""
    functions = {key(function): function for function in model.header.functions}
    pending = [key(node) for node in called(model)]
    found: set[Key] = set()
    while pending:
        item = pending.pop()
        if item in functions and item not in found:
            found.add(item)
            pending += [key(node) for node in calls(functions[item].node)]
    return found


def called(model: ir.Model) -> Iterator[onnx.NodeProto]:
    """Yield the top-level nodes and those of their subgraphs."""
    return calls(map(node_proto, model.graph.nodes))
