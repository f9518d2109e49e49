"""Topological order of the top-level nodes (Kahn's algorithm, iterative, stable)."""

from __future__ import annotations

import heapq

from onnxprune.errors import ModelError
from onnxprune.ir import captures
from onnxprune.ir.model import Model


def topological_sort(model: Model) -> None:
    """Sorts the nodes in place; among nodes that are free to go, the earlier one goes first. ModelError on a cycle.

    Tensors that a subgraph captures count as inputs of the node that carries it.
    """
    nodes = model.graph.nodes
    maker = {tensor.name: index for index, node in enumerate(nodes) for tensor in node.outputs if tensor.name}
    waiting: list[int] = []
    followers: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        names = {tensor.name for tensor in node.inputs} | captures.of_nodes([node])
        sources = {maker[name] for name in names if name in maker}
        waiting.append(len(sources))
        for source in sources:
            followers[source].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    if len(order) != len(nodes):
        stuck = next(node for index, node in enumerate(nodes) if waiting[index] > 0)
        raise ModelError(f"the graph has a cycle through or before node {stuck.name or stuck.op!r}")
    if order != list(range(len(nodes))):
        model.graph.nodes = [nodes[index] for index in order]
