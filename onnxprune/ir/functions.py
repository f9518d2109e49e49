"""The guard against function calls that expand without bound ("billion laughs"), which hang every inliner."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from onnxprune.errors import LimitError, ModelError

MAX_EXPANDED_NODES = 1_000_000
Key = tuple[str, str]


def check_functions(header: onnx.ModelProto, ops: Iterable[str]) -> None:
    """Raises LimitError when the calls expand to more than a million nodes, ModelError when they form a cycle.

    Linear in the size of the model: each function is counted once. `ops` are the operators of the main graph.
    """
    if header.functions:
        names = {function.name for function in header.functions}
        expanded = expanded_sizes(header.functions)
        total = sum(expanded[op] if op in names else 1 for op in ops)
        if total > MAX_EXPANDED_NODES:
            raise LimitError(f"the model's functions expand to {total} nodes, more than {MAX_EXPANDED_NODES}")


def expanded_sizes(functions: Iterable[onnx.FunctionProto]) -> dict[str, int]:
    """Nodes that a call of each function expands to, by function name (overloads and domains are added up)."""
    bodies: dict[str, list[str]] = {}
    for function in functions:
        bodies.setdefault(function.name, []).extend(_ops(function.node))
    sizes: dict[str, int] = {}
    for root in bodies:
        _count(root, bodies, sizes)
    return sizes


def _count(root: str, bodies: dict[str, list[str]], sizes: dict[str, int]) -> None:
    stack, open_names = [root], {root}
    while stack:
        name = stack[-1]
        missing = {op for op in bodies[name] if op in bodies and op not in sizes}
        if not missing:
            sizes[name] = sum(sizes.get(op, 1) for op in bodies[name])
            open_names.discard(stack.pop())
            continue
        child = min(missing)
        if child in open_names:
            raise ModelError(f"function {child!r} calls itself, directly or through others")
        open_names.add(child)
        stack.append(child)


def _ops(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    for node in nodes:
        yield node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _ops(graph.node)
