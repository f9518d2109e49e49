"""MatMulNBits in real numbers: its weight is unpacked here, by the specification and not by the rules' code.

Source: com.microsoft.MatMulNBits in onnxruntime/docs/ContribOperators.md. Within a byte the lowest bits come first; a
zero point that is left out is the middle of the range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from onnxprune.errors import ModelError
from passes.verify_masking.contractions import attribute
from passes.verify_masking.levels import Writer

Array = npt.NDArray[Any]


def matmul_nbits(w: Writer) -> None:
    """x W' + bias, W = (code - zero point) * scale, one of both for each block of a row."""
    bits, block, inputs = (
        attribute(w.node, name, default) for name, default in (("bits", 4), ("block_size", 0), ("K", 0))
    )
    codes = _codes(_values(w, 1), bits)
    rows = len(codes)
    codes = codes.reshape(rows, -1, block)
    scales = _values(w, 2).reshape(rows, -1, 1)
    real = ((codes - _zeros(w, bits, codes.shape[:2])) * scales).reshape(rows, -1)[:, :inputs]
    # a node and no initializer: it is nobody's weight, no plan and no compensation names it
    weight = w.emit("Constant", [], value=numpy_helper.from_array(np.ascontiguousarray(real.T, np.float32)))
    bias = w.operand(5)
    y = w.emit("MatMul", [w.operand(0), weight], "" if bias else w.node.output[0])
    if bias:
        w.emit("Add", [y, bias], w.node.output[0])


def _values(w: Writer, slot: int) -> Array:
    for tensor in w.model.graph.initializer:
        if tensor.name == w.operand(slot):
            return np.asarray(numpy_helper.to_array(tensor), np.float64)
    raise ModelError(f"{w.operand(slot)} of MatMulNBits is computed, which has no relaxed form")


def _codes(packed: Array, bits: int) -> Array:
    """(rows, ..., bytes) as (rows, codes)."""
    levels = packed.reshape(len(packed), -1).astype(np.int64)
    parts = [levels >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(len(packed), -1)


def _zeros(w: Writer, bits: int, blocks: tuple[int, ...]) -> Array:
    """Zero points that broadcast against (rows, blocks, block size)."""
    if not w.operand(3):
        return np.asarray(float(1 << bits - 1))
    values = _values(w, 3).reshape(blocks[0], -1)
    if w.types[w.operand(3)] == TensorProto.UINT8:
        values = _codes(values, bits)[:, : blocks[1]]
    return values[:, :, None]
