"""What rules ask about the tensors of a node: shapes, constant parameters, whether something is a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.links import AxisRef, Barrier, Operand, Shape

# what exporters and quantizers leave between an initializer and its use; anything else makes it an activation
_MAKES = ("Concat", "Constant", "ConstantOfShape", "Expand")
_REARRANGES = ("Flatten", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_SCALES = ("Add", "Cast", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Sub")
_FUSED = ("DequantizeLinear", "QuantizeLinear")
_WEIGHT_OPS = frozenset(
    (*(("", op) for op in (*_MAKES, *_REARRANGES, *_SCALES)), *(("com.microsoft", op) for op in _FUSED))
)
_LONGEST = 32


def operand(tensor: gs.Tensor) -> Operand:
    """Name and shape of a tensor. Dimensions are ints, symbols, or None."""
    shape = tensor.shape
    if shape is None or not tensor.name:
        return Operand(tensor.name, None)
    return Operand(tensor.name, tuple(shape))


def shape(tensor: gs.Tensor) -> Shape:
    """The shape; a rule is never called when the rank of an operand is unknown."""
    return tuple(tensor.shape)


def rank(tensor: gs.Tensor) -> int:
    """The number of axes."""
    return len(tensor.shape)


def ref(tensor: gs.Tensor, *axes: int) -> AxisRef:
    """Names axes of a tensor; negative axes count from the end."""
    count = len(tensor.shape)
    return AxisRef(tensor.name, tuple(axis + count if axis < 0 else axis for axis in axes))


def size(tensor: gs.Tensor, axis: int) -> int | None:
    """The static size of an axis, None where it is dynamic."""
    dim = tensor.shape[axis]
    return dim if isinstance(dim, int) else None


def static(tensor: gs.Tensor, axis: int) -> int:
    """The static size of an axis. Barrier where it is dynamic."""
    dim = size(tensor, axis)
    if dim is None:
        raise Barrier(f"{tensor.name}:{axis} has a dynamic size")
    return dim


def present(node: gs.Node, slot: int) -> gs.Tensor | None:
    """The input at a slot, None where it is left out."""
    return node.inputs[slot] if slot < len(node.inputs) and node.inputs[slot].name else None


def output(node: gs.Node, slot: int) -> gs.Tensor | None:
    """The output at a slot, None where it is left out."""
    return node.outputs[slot] if slot < len(node.outputs) and node.outputs[slot].name else None


def integer(node: gs.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return int(ir.attribute(node, name, default))


def from_front(axis: int, count: int) -> int:
    """An axis of `count` ones, counted from the front. Barrier where it is outside."""
    if not -count <= axis < count:
        raise Barrier(f"axis {axis} is outside of rank {count}")
    return axis % count


def axis_of(node: gs.Node, tensor: gs.Tensor, default: int) -> int:
    """The attribute `axis`, counted from the front."""
    axis, count = integer(node, "axis", default), rank(tensor)
    if not -count <= axis <= count:
        raise Barrier(f"axis {axis} is outside of {tensor.name}")
    return axis + count if axis < 0 else axis


def attribute_ints(node: gs.Node, name: str) -> list[int] | None:
    """A list-of-integers attribute, None where it is absent. An empty list stays an AttributeProto in the graph."""
    value: Any = ir.attribute(node, name)
    if value is None:
        return None
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else []


def constant_ints(tensor: gs.Tensor | None) -> list[int] | None:
    """The values of a constant integer tensor, None where it is absent or not constant."""
    values = None if tensor is None else ir.constant(tensor)
    return None if values is None else [int(v) for v in np.asarray(values).reshape(-1)]


def parameter(node: gs.Node, name: str, slot: int) -> list[int] | None:
    """A list of integers given as an attribute (older opsets) or as a constant input. Barrier where it is computed."""
    tensor = present(node, slot)
    if tensor is None:
        return attribute_ints(node, name)
    values = constant_ints(tensor)
    if values is None:
        raise Barrier(f"{name} of {node.op} is not constant")
    return values


def is_weight(tensor: gs.Tensor) -> bool:
    """Whether the tensor is constant, or made from constants by a few operators that rearrange or scale them."""
    pending, seen = [tensor], 0
    while pending:
        each = pending.pop()
        if isinstance(each, gs.Constant) or not each.name:
            continue
        node = ir.producer(each)
        seen += 1
        if node is None or (ir.domain(node), node.op) not in _WEIGHT_OPS or seen > _LONGEST:
            return False
        pending += node.inputs
    return True
