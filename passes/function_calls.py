"""Which local functions a model calls, and how many nodes inlining them would make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from onnxprune import ir
from onnxprune.errors import LimitError, ModelError
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
    pending = [key(node) for node in calls(map(node_proto, model.graph.nodes))]
    found: set[Key] = set()
    while pending:
        item = pending.pop()
        if item in functions and item not in found:
            found.add(item)
            pending += [key(node) for node in calls(functions[item].node)]
    return found


def expanded_nodes(model: ir.Model, limit: int) -> int:
    """Return the number of nodes after inlining everything; ModelError on recursion, LimitError above ``limit``.

    Each function is counted once, so a chain of functions that call each other twice costs linear time.
    """
    functions = {key(function): function for function in model.header.functions}
    sizes: dict[Key, int] = {}
    order = _callees_first(functions)
    for item in order:
        sizes[item] = sum(sizes.get(key(node), 1) for node in calls(functions[item].node))
        if sizes[item] > limit:
            raise LimitError(f"inlining function {item[1]!r} gives more than {limit} nodes; inline fewer functions")
    total = sum(sizes.get(key(node), 1) for node in calls(map(node_proto, model.graph.nodes)))
    if total > limit:
        raise LimitError(f"inlining the model's functions gives {total} nodes, more than {limit}")
    return total


def _callees_first(functions: dict[Key, onnx.FunctionProto]) -> list[Key]:
    order: list[Key] = []
    state: dict[Key, int] = {}
    for root in functions:
        stack = [root]
        while stack:
            item = stack[-1]
            if state.get(item) is None:
                state[item] = 1
                for callee in {key(node) for node in calls(functions[item].node)} & functions.keys():
                    if state.get(callee) == 1:
                        raise ModelError(f"function {callee[1]!r} of the model calls itself")
                    if callee not in state:
                        stack.append(callee)
            else:
                stack.pop()
                if state[item] == 1:
                    state[item] = 2
                    order.append(item)
    return order
