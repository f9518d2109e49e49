"""Gathers the links of all nodes into flat tables of axes, ties and pins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.facts import is_weight
from onnxprune.channels.links import (
    AxisKey,
    AxisRef,
    Contract,
    Inexact,
    Inner,
    Ints,
    Multiple,
    OpLinks,
    Pin,
    Produce,
    Role,
    Tie,
)
from onnxprune.channels.registry import links_of
from onnxprune.channels.rules.repetition import SIZE_READERS


class AxisTie(NamedTuple):
    """Element j of axis `b` is element index[j] of axis `a` (axis numbers), because of `node`."""

    a: int
    b: int
    index: Ints | None  # type: ignore[assignment]  # a tuple has a method of this name
    node: str


class Block(NamedTuple):
    """Axes on two sides of a reshape whose joint elements are the same."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    node: str


class AxisPin(NamedTuple):
    """Elements of an axis (None: all) that stay. node: "Op name" of the node that says so, if one does."""

    axis: int
    elements: Ints | None
    reason: str
    node: str = ""

    @property
    def text(self) -> str:
        """The reason with the node's name."""
        return f"{self.node}: {self.reason}" if self.node else self.reason

    @property
    def words(self) -> str:
        """The reason with the operator alone: the same for all nodes that give it."""
        return spoken(self.node.partition(" ")[0], self.reason)


def spoken(op: str, reason: str) -> str:
    """A reason with the operator that gives it, unless it names it itself."""
    return reason if not op or op in reason.replace(".", " ").split() else f"{op}: {reason}"


class Production(NamedTuple):
    axis: int
    kind: str


class Summation(NamedTuple):
    axis: int
    node: str


@dataclass
class Tables:
    """Axes with static sizes, numbered in the order of first use, and everything that links say about them. The key of
    an axis inside a node has a negative axis.
    """

    number: dict[AxisKey, int] = field(default_factory=dict)
    keys: list[AxisKey] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    ties: list[AxisTie] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    pins: list[AxisPin] = field(default_factory=list)
    produced: list[Production] = field(default_factory=list)
    summed: list[Summation] = field(default_factory=list)
    inexact: list[int] = field(default_factory=list)
    barred: list[tuple[int, str]] = field(default_factory=list)
    roles: list[tuple[int, str]] = field(default_factory=list)
    multiples: list[tuple[int, int]] = field(default_factory=list)
    barriers: dict[str, str] = field(default_factory=dict)  # why nothing is known about a node, by its key

    def axis(self, tensor: str, axis: int, size: int) -> int:
        """The number of an axis, new or known."""
        key = (tensor, axis)
        if key not in self.number:
            self.number[key] = len(self.keys)
            self.keys.append(key)
            self.sizes.append(size)
        return self.number[key]

    def pin_tensor(self, tensor: gs.Tensor, reason: str) -> None:
        """Pins every static axis of a tensor."""
        for axis, dim in enumerate(tensor.shape or ()):
            if isinstance(dim, int):
                self.pins.append(AxisPin(self.axis(tensor.name, axis, dim), None, reason))

    def add(self, op: OpLinks) -> None:
        """Takes over the links of one node; axes that none of them mentions are pinned."""
        mentioned = op.mentioned()
        for operand in op.operands():
            for axis, dim in enumerate(operand.shape or ()):
                if not isinstance(dim, int):
                    continue
                number = self.axis(operand.name, axis, dim)
                if (operand.name, axis) not in mentioned:
                    reason = op.barrier or "this axis keeps its size"
                    self.pins.append(AxisPin(number, None, reason, f"{op.op} {op.node}"))
        for link in op.links:
            if isinstance(link, Inner):
                self.axis(link.axis.tensor, link.axis.axes[0], link.size)
            elif isinstance(link, Tie):
                self._add_tie(link, op)
            elif isinstance(link, Pin):
                for number in self._numbers(link.axis):
                    self.pins.append(AxisPin(number, link.elements, link.reason, f"{op.op} {op.node}"))
            else:
                for number in self._numbers(link[0]):
                    self._mark(link, number, op.node)

    def _add_tie(self, tie: Tie, op: OpLinks) -> None:
        left, right = self._numbers(tie.a), self._numbers(tie.b)
        if len(tie.a.axes) + len(tie.b.axes) > 2:
            self.blocks.append(Block(left, right, f"{op.op} {op.node}"))
        elif left and right:
            index = tie.index
            if index is not None and np.array_equal(index, np.arange(self.sizes[left[0]])):
                index = None
            self.ties.append(AxisTie(left[0], right[0], index, f"{op.op} {op.node}"))
        else:  # a static axis meets a dynamic one
            for number in (*left, *right):
                self.pins.append(AxisPin(number, None, "it is paired with a dynamic axis", f"{op.op} {op.node}"))

    def _mark(self, link: Contract | Produce | Inexact | Role | Multiple, number: int, node: str) -> None:
        if isinstance(link, Contract):
            self.summed.append(Summation(number, node))
        elif isinstance(link, Produce):
            self.produced.append(Production(number, link.kind))
        elif isinstance(link, Inexact):
            self.inexact.append(number)
        elif isinstance(link, Multiple):
            self.multiples.append((number, link.of))
        else:
            self.roles.append((number, link.kind))

    def _numbers(self, ref: AxisRef) -> tuple[int, ...]:
        found = (self.number.get((ref.tensor, axis)) for axis in ref.axes)
        return tuple(number for number in found if number is not None)


def collect(model: ir.Model, freeze: str | None = None) -> Tables:
    """Runs every rule over the model and its subgraphs, whose tensors carry shapes. `freeze` pins tensors and nodes by
    a regex.
    """
    tables = Tables()
    pattern = None if freeze is None else re.compile(freeze)
    _collect(model, _signature(model), tables)
    if pattern is not None:
        for graph in ir.graphs(model):
            _freeze(graph, pattern, tables)
    return tables


def _collect(graph: ir.Model, signature: Iterator[tuple[gs.Tensor, str]], tables: Tables) -> None:
    """The links of one graph, then those of the subgraphs of each of its nodes."""
    fixed = set()
    for tensor, reason in (*signature, *_captured(graph)):
        tables.pin_tensor(tensor, reason)
        fixed.add(tensor.name)
    for tensor, reason in _captured(graph):
        if _is_matrix(tensor):
            tables.barred.append((tables.number[tensor.name, 0], reason))
    ir.bodies(graph)
    for node in graph.graph.nodes:
        links = links_of(node, graph.opset(ir.domain(node)))
        if node.op in SIZE_READERS and any(tensor.name in fixed for tensor in node.outputs):
            links = replace(links, links=(), barrier="sizes are an output of the graph, or used inside a subgraph")
        tables.add(links)
        if links.barrier:
            _bar(node, links, tables)
        for name, value in node.attrs.items():
            if isinstance(value, ir.Body):
                _collect(value, _border(value, f"{name} of {node.op} {links.node}"), tables)


def _signature(model: ir.Model) -> Iterator[tuple[gs.Tensor, str]]:
    for tensor in model.graph.inputs:
        what = "overridable initializer" if isinstance(tensor, gs.Constant) else "graph input"
        yield tensor, f"{what} {tensor.name}"
    for tensor in model.graph.outputs:
        yield tensor, f"graph output {tensor.name}"


def _border(body: ir.Body, place: str) -> Iterator[tuple[gs.Tensor, str]]:
    """What a subgraph itself takes and gives; what it captures is pinned outside, under the same name."""
    for tensor in body.graph.inputs[: body.formal]:
        yield tensor, f"{tensor.name} is an input of the {place}"
    for tensor in body.graph.outputs:
        yield tensor, f"{tensor.name} is an output of the {place}"


def _captured(graph: ir.Model) -> Iterator[tuple[gs.Tensor, str]]:
    captured = ir.captured(graph)
    if captured:
        for name, tensor in ir.tensors(graph).items():
            if name in captured:
                yield tensor, f"{name} is used inside a subgraph"


def _bar(node: gs.Node, links: OpLinks, tables: Tables) -> None:
    """Remembers a node that nothing is known about, and its weights, to name them among the frozen axes."""
    tables.barriers[links.node] = spoken(links.op, links.barrier)
    for tensor in node.inputs:
        if _is_matrix(tensor):
            number = tables.number[tensor.name, 0]
            tables.barred.append((number, f"{node.op} {links.node}: {links.barrier}"))


def _is_matrix(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and len(tensor.shape) > 1 and np.dtype(tensor.dtype).kind in "fV"


def _freeze(model: ir.Model, pattern: re.Pattern[str], tables: Tables) -> None:
    for tensor in ir.tensors(model).values():
        if pattern.search(tensor.name):
            tables.pin_tensor(tensor, f"frozen by name: {tensor.name}")
    for node in model.graph.nodes:
        if node.name and pattern.search(node.name):
            for tensor in (*filter(is_weight, node.inputs), *node.outputs):
                tables.pin_tensor(tensor, f"frozen by name: {node.name}")
