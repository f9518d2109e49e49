"""The model that passes work on: a graphsurgeon graph and everything of the file that graphsurgeon has no place for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import onnx
import onnx_graphsurgeon as gs

from onnxprune.ir.objects import Constant, Node, Variable

_DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass
class Model:
    """A model in memory.

    `graph` holds the top-level nodes (topologically sorted after import), inputs and outputs.
    `header` is the ModelProto without nodes, initializers and types of tensors: versions, opsets, metadata, functions.
    `loose` holds initializers that no top-level node needs to use: those captured by subgraphs, and unused ones.
    `path` and `side_files` are the files it was read from; they are never written to.
    Arrays and protos are immutable by convention: assign new ones, never write in place.
    """

    graph: gs.Graph
    header: onnx.ModelProto
    path: Path | None = None
    loose: dict[str, Constant] = field(default_factory=dict)
    side_files: frozenset[Path] = frozenset()

    def copy(self) -> Self:
        """An independent graph with an independent header; weight arrays and attribute protos are shared."""
        twins: dict[int, gs.Tensor] = {}

        def twin(tensor: gs.Tensor) -> gs.Tensor:
            if id(tensor) not in twins:
                twins[id(tensor)] = _copy_tensor(tensor)
            return twins[id(tensor)]

        graph = gs.Graph(
            nodes=[_copy_node(node, map(twin, node.inputs), map(twin, node.outputs)) for node in self.graph.nodes],
            inputs=[twin(tensor) for tensor in self.graph.inputs],
            outputs=[twin(tensor) for tensor in self.graph.outputs],
            name=self.graph.name,
            doc_string=self.graph.doc_string,
            opset=self.graph.opset,
            import_domains=self.graph.import_domains,
            ir_version=self.graph.ir_version,
        )
        header = onnx.ModelProto()
        header.CopyFrom(self.header)
        loose = {name: twin(tensor) for name, tensor in self.loose.items()}
        return replace(self, graph=graph, header=header, loose=loose)

    def opset(self, domain: str = "") -> int:
        """The version of `domain` that the model imports; 0 when it does not import it."""
        names = _DEFAULT_DOMAINS if domain in _DEFAULT_DOMAINS else (domain,)
        return max((entry.version for entry in self.header.opset_import if entry.domain in names), default=0)

    def all_tensors(self) -> Iterator[gs.Tensor]:
        """Every named tensor once, in the order of first use: inputs, nodes, outputs, loose initializers."""
        seen: set[str] = set()
        for tensor in self.mentions():
            if tensor.name and tensor.name not in seen:
                seen.add(tensor.name)
                yield tensor

    def mentions(self) -> Iterable[gs.Tensor]:
        """Every place that refers to a tensor, in order: repeated, and with omitted ones (of empty name)."""
        yield from self.graph.inputs
        for node in self.graph.nodes:
            yield from node.inputs
            yield from node.outputs
        yield from self.graph.outputs
        yield from self.loose.values()


@dataclass
class Body(Model):
    """A subgraph of If, Loop or Scan, opened: the attribute holds it in place of the AttributeProto (see `graphs`).

    Its first `formal` inputs are the subgraph's own; the others stand for the outer tensors that it captures, by name.
    No tensor of another graph has the name of one that it defines. `taken`: names that new tensors may not get.
    """

    formal: int = 0
    taken: set[str] = field(default_factory=set)


def _copy_node(node: gs.Node, inputs: Iterable[gs.Tensor], outputs: Iterable[gs.Tensor]) -> Node:
    attrs = {name: _copy_attribute(value) for name, value in node.attrs.items()}
    copy = Node(node.op, node.name, attrs, inputs=list(inputs), outputs=list(outputs), domain=node.domain)
    extras = getattr(node, "extras", None)
    if extras is not None:
        copy.extras = extras
    return copy


def _copy_attribute(value: Any) -> Any:
    if isinstance(value, Body):
        return value.copy()
    return list(value) if isinstance(value, list) else value


def _copy_tensor(tensor: gs.Tensor) -> gs.Tensor:
    copy: Any
    if isinstance(tensor, gs.Constant):
        copy = Constant(tensor.name, tensor._values, tensor.data_location, tensor._export_dtype)
        copy.overridable = getattr(tensor, "overridable", False)
    else:
        shape = None if tensor.shape is None else list(tensor.shape)
        copy = Variable(tensor.name, tensor.dtype, shape, tensor.type)
    info = getattr(tensor, "info", None)
    if info is not None:
        copy.info = info
    return copy
