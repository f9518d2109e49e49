"""Activations in terms of operators with 8-bit kernels.

HardSwish, and x times HardSigmoid(x), are x * Clip(x + 3, 0, 6) / 6 (Howard et al., arXiv 1905.02244, section 5.2): an
8-bit sum whose saturation clips, an 8-bit product, and a division that only renames a scale (`scaling`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.objects import Constant, Node, Variable

_SIXTH = 1.0 / 6.0


def spell_out(model: ir.Model) -> int:
    """Rewrites both forms on float32, in place; returns how often."""
    fixed = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    nodes: list[gs.Node] = []
    count = 0
    for node in model.graph.nodes:
        source = _swished(node, fixed)
        if source is None:
            nodes.append(node)
            continue
        result = node.outputs[0]
        for tensor in node.inputs:
            gate = ir.producer(tensor)
            if gate is not None and gate.op == "HardSigmoid":
                gate.inputs, gate.outputs = [], []
                nodes = [item for item in nodes if item is not gate]
        node.inputs, node.outputs = [], []
        nodes.extend(_hard_swish(source, result))
        count += 1
    model.graph.nodes = nodes
    return count


def _swished(node: gs.Node, fixed: set[str]) -> gs.Tensor | None:
    """x, where the node's result is HardSwish(x)."""
    if ir.domain(node) or not node.outputs or node.outputs[0].dtype != np.float32:
        return None
    if node.op == "HardSwish":
        source: gs.Tensor = node.inputs[0]
        return source
    if node.op != "Mul" or len(node.inputs) != 2:
        return None
    for data, gate in (node.inputs, node.inputs[::-1]):
        maker = ir.producer(gate)
        alone = maker is not None and len(ir.consumers(gate)) == 1 and gate.name not in fixed
        if maker is not None and alone and maker.op == "HardSigmoid" and maker.inputs[0] is data:
            slope, offset = maker.attrs.get("alpha", 0.2), maker.attrs.get("beta", 0.5)
            if abs(slope - _SIXTH) < 1e-5 and offset == 0.5:
                return data
    return None


def _hard_swish(source: gs.Tensor, result: gs.Tensor) -> Iterator[gs.Node]:
    def number(name: str, value: float) -> gs.Tensor:
        return Constant(f"{result.name}__{name}", np.array(value, np.float32))

    names = ("shifted", "gate", "product")
    shifted, gate, product = (Variable(f"{result.name}__{name}", np.float32, source.shape) for name in names)
    yield Node("Add", shifted.name, {}, [source, number("three", 3.0)], [shifted])
    yield Node("Clip", gate.name, {}, [shifted, number("zero", 0.0), number("six", 6.0)], [gate])
    yield Node("Mul", product.name, {}, [source, gate], [product])
    yield Node("Div", f"{result.name}__sixth", {}, [product, number("divisor", 6.0)], [result])
