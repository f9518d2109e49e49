"""Moves initializers into the one subgraph that uses them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune import ir
from onnxprune.ir import captures
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.evaluation import tensor_bytes


@dataclass(frozen=True)
class SinkInitializers:
    """Give a subgraph what only it uses: inside, a weight is free to change and a constant is known.

    Rewrites:
      1. An initializer that one subgraph captures and nothing else reads moves into it.
      2. A small integer initializer (a shape, axes, an index) that several readers share is copied into each subgraph
         that captures it.
    Requires: nothing.
    Guarantees: bit-equal outputs.
    Leaves alone: overridable initializers, graph outputs; weights that two subgraphs share, or that would make the
    message of the graph larger than ``max_bytes``, since tensors of subgraphs cannot lie in a side file.
    Options: ``max_elements`` of rewrite 2 (default 64); ``max_bytes`` of rewrite 1, all together (default 512 MiB).
    References: ONNX IR specification, "Nested graphs".
    """

    name: ClassVar[str] = "sink-initializers"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    max_elements: int = 64
    max_bytes: int = 512 << 20

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """One level down; the subgraphs' own runs carry on."""
        bodies = [(body, captures.of_body(body)) for body in ir.bodies(model)]
        if not bodies:
            return PassResult(False)
        if not isinstance(model, ir.Body):
            ir.reserve_names(model)
        fixed = {tensor.name for tensor in (*model.graph.inputs, *model.graph.outputs)} | _seen_closed(model)
        counts: Counter[str] = Counter()
        left = self.max_bytes
        for name, tensor in ir.initializers(model).items():
            users = [body for body, names in bodies if name in names and name not in fixed]
            alone = len(users) == 1 and not tensor.outputs and tensor_bytes(tensor) <= left
            if not users or not (alone or self._is_small(tensor)):
                continue
            for body in users:
                _place(body, tensor, name if alone else _fresh(body, name))
            left -= tensor_bytes(tensor) if alone else 0
            counts["moved" if alone else "copied"] += len(users)
            model.loose.pop(name, None)
        return PassResult.of(counts)

    def _is_small(self, tensor: ir.Constant) -> bool:
        return math.prod(tensor.shape) <= self.max_elements and np.dtype(tensor.dtype).kind in "iub"


def _seen_closed(model: ir.Model) -> set[str]:
    """Names that subgraphs use which are not open: nothing there can be renamed."""
    names: set[str] = set()
    for node in model.graph.nodes:
        for graph in captures.subgraphs(node):
            names |= _seen_closed(graph) if isinstance(graph, ir.Body) else captures.of_graph(graph)
    return names


def _fresh(body: ir.Body, name: str) -> str:
    """A name for a copy of the initializer: names are unique over all graphs."""
    fresh = ir.free_name(name, body.taken, {name})
    body.taken.add(fresh)
    return fresh


def _place(body: ir.Body, source: ir.Constant, name: str) -> None:
    """Turns what stands for a captured initializer in a body into an initializer of the body, with its own name."""
    twin = next(tensor for tensor in body.graph.inputs[body.formal :] if tensor.name == source.name)
    inside = ir.graphs(body)[1:]
    body.graph.inputs = [tensor for tensor in body.graph.inputs if tensor is not twin]
    for inner in inside:
        for tensor in inner.graph.inputs:
            if tensor.name == source.name:
                tensor.name = name
    twin.to_constant(source._values, export_dtype=source._export_dtype)
    twin.name, twin.info = name, None
    if name in ir.captured(body) or not twin.outputs:
        body.loose[name] = twin
