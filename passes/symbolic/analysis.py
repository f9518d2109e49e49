"""One forward walk that finds the symbolic shape of every tensor and the symbolic value of small integer ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.pipeline import PassContext
from passes.shapes import Type, infer
from passes.symbolic import layout_rules, shape_rules, values
from passes.symbolic.dims import Dim, Size, TooComplexError, symbol
from passes.symbolic.values import Values

_FAILURES = (TooComplexError, ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError)
"""What a rule raises on a node that breaks its operator's specification; such a node is simply unknown."""


@dataclass
class Facts:
    """What is known about a model's sizes.

    ``shapes``: sizes by tensor name. ``known``: integer (or whole-number) values by tensor name. ``sources``: for a
    symbol that is a dimension of a graph input, that input's name and the axis. ``types``: inferred numpy dtypes.
    """

    opset: int
    shapes: dict[str, list[Size]] = field(default_factory=dict)
    known: dict[str, Values] = field(default_factory=dict)
    sources: dict[str, tuple[str, int]] = field(default_factory=dict)
    types: dict[str, Any] = field(default_factory=dict)

    def shape(self, tensor: gs.Tensor) -> list[Size] | None:
        """Return the sizes of ``tensor``, or None when its rank is unknown."""
        found = self.shapes.get(tensor.name)
        return None if found is None else list(found)

    def value(self, tensor: gs.Tensor) -> Values | None:
        """Return the elements of a small integer tensor, or None."""
        return self.known.get(tensor.name)

    def input_value(self, node: ir.Node, position: int) -> Values | None:
        """Return :meth:`value` of one input of ``node``; None when it is absent."""
        if position >= len(node.inputs) or not node.inputs[position].name:
            return None
        return self.known.get(node.inputs[position].name)

    def rule_shape(self, node: ir.Node) -> list[Size] | None:
        """Return what the shape rule of ``node`` says about its first output."""
        rule = shape_rules.RULES.get(node.op)
        return None if rule is None else rule(node, self)

    def is_floating(self, tensor: gs.Tensor) -> bool:
        """Tell whether ``tensor`` holds floating-point numbers (unknown types count as such)."""
        dtype = self.types.get(tensor.name)
        return dtype is None or np.dtype(dtype).kind not in "iub"


def analyze(model: ir.Model, ctx: PassContext | None = None) -> Facts:
    """Return the facts of ``model``; nothing recorded in it but the signature and the initializers is trusted.

    ``ctx``: that of the pass that asks, which may hold them already.
    """
    return _analyze(model) if ctx is None else ctx.finding("sizes", lambda: _analyze(model))


def _analyze(model: ir.Model) -> Facts:
    inferred = infer(model)
    facts = Facts(model.opset())
    for name, tensor in inferred.items():
        facts.types[name] = tensor.dtype
    overridable = {tensor.name for tensor in model.graph.inputs}
    for tensor in model.graph.inputs:
        _declare(facts, tensor)
    for tensor in ir.initializers(model).values():
        facts.shapes[tensor.name] = [int(size) for size in tensor.shape]
        facts.types[tensor.name] = tensor.dtype
        limit = values.MAX_ELEMENTS if np.dtype(tensor.dtype).kind in "iub" else values.MAX_FLOATS
        if tensor.name not in overridable and math.prod(tensor.shape) <= limit:
            _learn(facts, tensor.name, values.lift(tensor.values))
    functions = {function.name for function in model.header.functions}
    for node in model.graph.nodes:
        own = not ir.domain(node) and node.op not in functions
        _visit(facts, node, own, inferred)
    return facts


def _declare(facts: Facts, tensor: gs.Tensor) -> None:
    if tensor.shape is None:
        return
    sizes: list[Size] = []
    for axis, size in enumerate(tensor.shape):
        if isinstance(size, (int, np.integer)) and size > 0:
            sizes.append(int(size))
            continue
        name = f"input:{size}" if isinstance(size, str) and size else f"tensor:{tensor.name}.{axis}"
        facts.sources.setdefault(name, (tensor.name, axis))
        sizes.append(symbol(name))
    facts.shapes[tensor.name] = sizes


def _learn(facts: Facts, name: str, found: Values | None) -> None:
    if found is not None and found.size <= values.MAX_ELEMENTS:
        facts.known[name] = found


def _visit(facts: Facts, node: ir.Node, own: bool, inferred: dict[str, Type]) -> None:
    outputs = [tensor for tensor in node.outputs if tensor.name]
    ruled = _ruled_shapes(facts, node) if own else {}
    for tensor in outputs:
        _record_shape(facts, tensor.name, ruled.get(tensor.name), inferred.get(tensor.name))
    if own and outputs and node.outputs[0].name and node.op in values.RULES:
        try:
            _learn(facts, node.outputs[0].name, values.RULES[node.op](node, facts))
        except _FAILURES:
            return


def _ruled_shapes(facts: Facts, node: ir.Node) -> dict[str, list[Size] | None]:
    try:
        if node.op == "Split":
            found = layout_rules.split_shapes(node, facts)
            return {} if found is None else {t.name: s for t, s in zip(node.outputs, found, strict=True)}
        return {node.outputs[0].name: facts.rule_shape(node)} if node.outputs else {}
    except _FAILURES:
        return {}


def _record_shape(facts: Facts, name: str, ruled: list[Size] | None, inferred: Type | None) -> None:
    """Take the rule's sizes, numbers that ONNX inference knows, and a symbol of its own for any other dimension."""
    declared = None if inferred is None or inferred.shape is None else list(inferred.shape)
    if ruled is None and declared is None:
        return
    if ruled is not None and declared is not None and len(ruled) != len(declared):
        ruled = None
    width = len(ruled if ruled is not None else declared or [])
    sizes: list[Size] = []
    for axis in range(width):
        number = declared[axis] if declared is not None else None
        if isinstance(number, (int, np.integer)) and number >= 0:
            sizes.append(int(number))
        elif ruled is not None:
            sizes.append(ruled[axis])
        else:
            sizes.append(symbol(f"tensor:{name}.{axis}"))
    facts.shapes[name] = sizes


__all__ = ["Dim", "Facts", "analyze"]
