"""What weights stand for: a quantized one times its scale, one behind a Transpose or Cast as it is read."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.facts import is_weight, present
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.runner import Runner


class _Slots(NamedTuple):
    """Inputs of an operator on 8-bit integers that hold its weight, the weight's scale (None: applied by later nodes)
    and its zero point, and the weight's axis that a vector of these runs along.
    """

    weight: int
    scale: int | None
    zero: int
    axis: int


_SLOTS = {
    ("", "QLinearConv"): _Slots(3, 4, 5, 0),
    ("", "QLinearMatMul"): _Slots(3, 4, 5, -1),
    ("", "MatMulInteger"): _Slots(1, None, 3, -1),
    ("", "ConvInteger"): _Slots(1, None, 3, 0),
    ("com.microsoft", "QGemm"): _Slots(3, 4, 5, -1),
    ("com.microsoft", "MatMulIntegerToFloat"): _Slots(1, 3, 5, -1),
    ("com.microsoft", "DynamicQuantizeMatMul"): _Slots(1, 2, 3, -1),
}


def effective_weights(model: ir.Model, names: Collection[str]) -> dict[str, Array]:
    """The values that the weights among `names` multiply with, by name; other tensors are left out.

    Initializers that an operator on 8-bit integers reads are dequantized; a tensor that is computed from initializers
    alone is run, and left out where the CPU provider cannot.
    """
    found: dict[str, Array] = {}
    computed: list[str] = []
    for name, tensor in ir.tensors(model).items():
        if name not in names:
            continue
        if isinstance(tensor, gs.Constant):
            found[name] = _dequantized(tensor)
        elif is_weight(tensor):
            computed.append(name)
    if computed:
        try:
            found.update(Runner(model, computed, [])({}))
        except ModelError:
            return found
    return found


def _dequantized(tensor: gs.Constant) -> Array:
    values = np.asarray(tensor.values)
    if values.dtype.kind not in "iu":
        return values
    for node in ir.consumers(tensor):
        slots = _SLOTS.get((ir.domain(node), node.op))
        if slots is not None and len(node.inputs) > slots.weight and node.inputs[slots.weight] is tensor:
            scale = _later_scale(node) if slots.scale is None else ir.constant(node.inputs[slots.scale])
            zero = present(node, slots.zero)
            axis = 0 if ir.attribute(node, "transB", 0) else slots.axis
            return _scaled(values, scale, None if zero is None else ir.constant(zero), axis)
    return values


def _scaled(values: Array, scale: Array | None, zero: Array | None, axis: int) -> Array:
    real = values.astype(np.float64)
    trailing = 0 if axis == -1 else values.ndim - 1 - axis
    if zero is not None:
        real = real - _along(zero.astype(np.float64), trailing)
    return real if scale is None else real * _along(scale.astype(np.float64), trailing)


def _along(parameter: Array, trailing: int) -> Array:
    return parameter.reshape(()) if parameter.size == 1 else parameter.reshape(-1, *(1,) * trailing)


def _later_scale(node: gs.Node) -> Array | None:
    """The constant that the int32 result is multiplied with, up to the scale of the activation; None where none is."""
    for cast in ir.consumers(node.outputs[0]):
        for product in ir.consumers(cast.outputs[0]) if cast.op == "Cast" else ():
            for factor in product.inputs if product.op == "Mul" else ():
                maker = ir.producer(factor)
                parts = [factor] if maker is None or maker.op != "Mul" else maker.inputs
                constants = [ir.constant(part) for part in parts]
                scale = next((value for value in constants if value is not None), None)
                if scale is not None:
                    return scale
    return None
