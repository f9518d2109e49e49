"""ONNX element types and their numpy dtypes (ml_dtypes for the ones numpy lacks)."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError

_PACKED_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    getattr(TensorProto, "INT2", -1): 2,
    getattr(TensorProto, "UINT2", -2): 2,
}
_SIX_BIT = {getattr(TensorProto, "FLOAT6E2M3", -1), getattr(TensorProto, "FLOAT6E3M2", -2)}


@cache
def to_numpy(elem_type: int) -> np.dtype[np.generic]:
    """The numpy dtype of an ONNX element type; raises ModelError for a type that this onnx release does not know."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        raise ModelError(f"unknown tensor element type {elem_type}; a newer onnx release may be needed") from None


@cache
def from_numpy(dtype: np.dtype[np.generic] | type[np.generic] | str | int) -> int:
    """The ONNX element type of a numpy dtype (an ONNX element type passes through)."""
    if isinstance(dtype, int):
        return dtype
    exact = np.dtype(dtype)
    if exact.kind in "OUST":
        return int(TensorProto.STRING)
    try:
        return int(onnx.helper.np_dtype_to_tensor_dtype(exact))
    except (KeyError, ValueError):
        raise ModelError(f"ONNX has no tensor type for numpy dtype {exact}") from None


def name_of(elem_type: int) -> str:
    """The ONNX spelling in lower case: float, int64, bfloat16."""
    try:
        return str(TensorProto.DataType.Name(elem_type)).lower()
    except ValueError:
        return f"type{elem_type}"


def packed_size(elem_type: int, elements: int) -> int | None:
    """Bytes that `elements` values take as raw_data; None where that is not fixed (strings, 6-bit floats)."""
    if elem_type == TensorProto.STRING or elem_type in _SIX_BIT:
        return None
    bits = _PACKED_BITS.get(elem_type)
    return elements * to_numpy(elem_type).itemsize if bits is None else -(-elements * bits // 8)


def is_packed(elem_type: int) -> bool:
    """Whether several values share a byte in raw_data."""
    return elem_type in _PACKED_BITS or elem_type in _SIX_BIT
