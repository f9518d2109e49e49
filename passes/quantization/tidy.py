"""Makes a QDQ graph cheap for the CPU provider: movement works on the 8-bit values, products at the tail keep float
outputs.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.objects import Constant

_LEFT_IN_FLOAT = frozenset({"Pad", "Slice", "DepthToSpace", "SpaceToDepth"})
"""Movement that the provider would run in float between two conversions, though its kernels take 8-bit tensors."""
_FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})
"""Contractions whose 8-bit kernels can write float."""


def tidy(model: ir.Model, saturating: frozenset[str] = frozenset()) -> dict[str, int]:
    """Applies both rewrites in place; returns how often each applied. `saturating`: names of nodes whose QuantizeLinear
    also clamps, and so has to stay.
    """
    counts = {"movement-in-8-bit": 0, "float-output": 0}
    captured = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    for node in list(model.graph.nodes):
        if node.op in _LEFT_IN_FLOAT and _move_in_8_bit(node, captured):
            counts["movement-in-8-bit"] += 1
        elif node.op in _FLOAT_OUTPUT and node.name not in saturating and _keep_float_output(model, node, captured):
            counts["float-output"] += 1
    _sweep(model)
    return counts


def _move_in_8_bit(node: gs.Node, fixed: set[str]) -> bool:
    """1. `DequantizeLinear -> move -> QuantizeLinear` of one scale and zero point -> `move` on the 8-bit tensor
    (padding with the zero point).
    """
    before, after = ir.producer(node.inputs[0]), _sole_reader(node.outputs[0], fixed)
    if before is None or after is None or before.op != "DequantizeLinear" or after.op != "QuantizeLinear":
        return False
    if not _same_parameters(before, after) or not before.inputs[0].name:
        return False
    zero_point = ir.constant(before.inputs[2])
    if zero_point is None or zero_point.ndim:
        return False
    node.inputs[0] = before.inputs[0]
    if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant":
        value = Constant(f"{node.outputs[0].name}_pad_value", zero_point)
        node.inputs = [*node.inputs[:2], value, *node.inputs[3:]]
    result = after.outputs[0]
    after.outputs = []
    after.inputs = []
    node.outputs = [result]
    return True


def _same_parameters(dequantize: gs.Node, quantize: gs.Node) -> bool:
    if len(dequantize.inputs) < 3 or len(quantize.inputs) < 3:
        return False
    pairs = [
        (ir.constant(a), ir.constant(b)) for a, b in zip(dequantize.inputs[1:3], quantize.inputs[1:3], strict=True)
    ]
    return all(a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def _keep_float_output(model: ir.Model, node: gs.Node, fixed: set[str]) -> bool:
    """2. `Gemm -> QuantizeLinear -> DequantizeLinear` that no 8-bit operator reads -> `Gemm` with a float output."""
    output = node.outputs[0]
    quantize = _sole_reader(output, set() if output in model.graph.outputs else fixed)
    if quantize is None or quantize.op != "QuantizeLinear" or any(_from_float(tensor) for tensor in node.inputs[:2]):
        return False
    dequantize = _sole_reader(quantize.outputs[0], fixed)
    if dequantize is None or dequantize.op != "DequantizeLinear":
        return False
    target = dequantize.outputs[0]
    if any(_becomes_8_bit(reader) for reader in ir.consumers(target)):
        return False
    dequantize.outputs, dequantize.inputs, quantize.inputs, quantize.outputs = [], [], [], []
    node.outputs = [target]
    return True


def _from_float(tensor: gs.Tensor) -> bool:
    source = ir.producer(tensor)
    return source is None or source.op != "DequantizeLinear"


def _becomes_8_bit(reader: gs.Node) -> bool:
    """Whether the provider fuses the reader into an 8-bit kernel: a QuantizeLinear takes its result."""
    return any(user.op == "QuantizeLinear" for tensor in reader.outputs for user in ir.consumers(tensor))


def _sole_reader(tensor: gs.Tensor, fixed: set[str]) -> gs.Node | None:
    readers = ir.consumers(tensor)
    return readers[0] if len(readers) == 1 and tensor.name not in fixed else None


def _sweep(model: ir.Model) -> None:
    """Removes conversions that nothing reads any more."""
    fixed = {tensor.name for tensor in model.graph.outputs} | ir.captured(model)
    dead: set[int] = set()
    for node in reversed(model.graph.nodes):
        if node.op not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        read = any(id(reader) not in dead for tensor in node.outputs for reader in tensor.outputs)
        if not read and not any(tensor.name in fixed for tensor in node.outputs):
            dead.add(id(node))
    for node in model.graph.nodes:
        if id(node) in dead:
            node.inputs, node.outputs = [], []
    model.graph.nodes = [node for node in model.graph.nodes if id(node) not in dead]
