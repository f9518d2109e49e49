"""Where fitted weights and biases are stored: an initializer, also behind operators that rearrange or quantize it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats.arrays import Array

_RESHAPES = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")


def is_writable(tensor: gs.Tensor) -> bool:
    """Whether `write` can give the tensor other values and change nothing else.

    True for an initializer with one reader, and for one behind Cast, Transpose, reshapes and DequantizeLinear (not
    blocked, with constant parameters), each with one reader.
    """
    if len(tensor.outputs) != 1:
        return False
    if isinstance(tensor, gs.Constant):
        return not getattr(tensor, "overridable", False)
    node = ir.producer(tensor)
    if node is None or ir.domain(node) or node.op not in (*_RESHAPES, "Cast", "Transpose", "DequantizeLinear"):
        return False
    if any(dim is None or isinstance(dim, str) for dim in node.inputs[0].shape or (None,)):
        return False
    if node.op == "DequantizeLinear" and (
        ir.attribute(node, "block_size", 0) or any(ir.constant(part) is None for part in node.inputs[1:] if part.name)
    ):
        return False
    return is_writable(node.inputs[0])


def write(tensor: gs.Tensor, values: Array) -> None:
    """Assigns the initializer underneath so that the tensor takes these values, rounded to what its type can hold.

    A quantized initializer keeps its scale and zero point; what is beyond their range is clipped.
    """
    if isinstance(tensor, gs.Constant):
        tensor.values = np.ascontiguousarray(values, dtype=np.dtype(tensor.dtype)).reshape(tensor.shape)
        return
    node = tensor.inputs[0]
    if node.op == "Transpose":
        order = ir.attribute(node, "perm") or list(range(values.ndim))[::-1]
        values = values.transpose(np.argsort(order))
    elif node.op == "DequantizeLinear":
        values = _levels(node, values)
    write(node.inputs[0], values.reshape(node.inputs[0].shape))


def _levels(node: gs.Node, values: Array) -> Array:
    """round(values / scale) + zero point, clipped: QuantizeLinear of the ONNX operator specification."""
    axis = int(ir.attribute(node, "axis", 1))
    shape = [1] * values.ndim
    scale, *rest = (np.asarray(ir.constant(part), np.float64) for part in node.inputs[1:] if part.name)
    if scale.size > 1:
        shape[axis] = -1
    zero = rest[0].reshape(shape if rest[0].size > 1 else ()) if rest else 0.0
    limits: Any = ml_dtypes.iinfo(np.dtype(node.inputs[0].dtype))  # type: ignore[no-untyped-call]
    scale = scale.reshape(shape if scale.size > 1 else ())
    levels: Array = np.clip(
        np.rint(values / np.where(scale == 0, 1, scale)) + zero, float(limits.min), float(limits.max)
    )
    return levels


@dataclass(frozen=True)
class BiasSite:
    """``tensor`` becomes ``base`` + ``scale`` times the bias; ``node`` receives it as a new input."""

    tensor: gs.Tensor
    scale: Array
    base: Array
    node: ir.Node | None = None

    def put(self, bias: Array) -> None:
        """Assigns the bias, one number an output."""
        write(self.tensor, (self.base + self.scale * bias).reshape(tuple(self.tensor.shape)))
        if self.node is not None:
            while len(self.node.inputs) < 3:
                self.node.inputs.append(self.tensor)
