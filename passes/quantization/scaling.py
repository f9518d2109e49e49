"""Products and quotients with one positive number, which 8-bit tensors take for nothing: the integers stay, the scale
changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir

_CLOSE = 1e-3


def factor(node: gs.Node) -> float | None:
    """What the node multiplies its only activation by, where that is one positive constant."""
    if node.op not in ("Mul", "Div") or ir.domain(node) or len(node.inputs) != 2:
        return None
    values = [ir.constant(tensor) for tensor in node.inputs]
    slot = 1 if values[1] is not None else 0
    number = values[slot]
    if values[1 - slot] is not None or number is None or number.size != 1 or number.ndim > 1:
        return None
    value = float(number.reshape(-1)[0])
    if not (np.isfinite(value) and value > 0.0) or (node.op == "Div" and slot == 0):
        return None
    return value if node.op == "Mul" else 1.0 / value


def rename(model: ir.Model) -> int:
    """`DequantizeLinear -> scaling -> QuantizeLinear` whose scales differ by the factor -> nothing: what read the
    second 8-bit tensor reads the first. In place; returns how often.
    """
    fixed = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    gone: set[int] = set()
    for node in model.graph.nodes:
        by = factor(node)
        after = ir.consumers(node.outputs[0])[:2] if by is not None and node.outputs[0].name not in fixed else []
        if by is None or len(after) != 1 or after[0].op != "QuantizeLinear":
            continue
        before = ir.producer(next(tensor for tensor in node.inputs if ir.constant(tensor) is None))
        if before is None or before.op != "DequantizeLinear" or not _differ_by(before, after[0], by):
            continue
        source, renamed = before.inputs[0], after[0].outputs[0]
        for reader in list(ir.consumers(renamed)):
            reader.inputs = [source if tensor is renamed else tensor for tensor in reader.inputs]
        for dead in (node, after[0]):
            dead.inputs, dead.outputs = [], []
            gone.add(id(dead))
    model.graph.nodes = [node for node in model.graph.nodes if id(node) not in gone]
    return len(gone) // 2


def _differ_by(before: gs.Node, after: gs.Node, by: float) -> bool:
    first, second = ([ir.constant(tensor) for tensor in node.inputs[1:3]] for node in (before, after))
    if len(first) < 2 or len(second) < 2 or any(value is None or value.size != 1 for value in (*first, *second)):
        return False
    (scale, zero), (new_scale, new_zero) = (([np.asarray(v) for v in pair]) for pair in (first, second))
    return bool(abs(new_scale / (scale * by) - 1.0) < _CLOSE and zero.dtype == new_zero.dtype and zero == new_zero)


def is_scaling(node: gs.Node) -> bool:
    """Whether `factor` knows the node."""
    return factor(node) is not None


def others(chosen: Sequence[gs.Node]) -> list[gs.Node]:
    """Those that a quantizer has to see: scaling needs no kernel."""
    return [node for node in chosen if not is_scaling(node)]
