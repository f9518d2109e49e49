"""Multiply-accumulate operations of a model for given shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxprune.ir.model import Model
from onnxprune.ir.query import attribute

Shapes = Mapping[str, Sequence[int]]


def macs(model: Model, shapes: Shapes) -> int:
    """Multiply-accumulates of one run."""
    return sum(node_macs(node, shapes) for node in model.graph.nodes)


def node_macs(node: gs.Node, shapes: Shapes) -> int:
    """Multiply-accumulates of one node; 0 for operators that do not contract."""
    out = shapes.get(node.outputs[0].name) if node.outputs else None
    operands = [shapes.get(tensor.name) for tensor in node.inputs[:2]]
    if out is None or len(operands) < 2 or operands[0] is None or operands[1] is None:
        return 0
    if node.op == "Conv":
        return math.prod(out) * math.prod(operands[1][1:])
    if node.op == "MatMul":
        return math.prod(out) * operands[0][-1]
    if node.op == "Gemm":
        return math.prod(out) * operands[0][0 if attribute(node, "transA", 0) else 1]
    return 0
