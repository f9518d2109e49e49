"""ValueInfoProto <-> the dtype and shape of a Variable, keeping denotations, docs and non-tensor types."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.ir import dtypes

Dim = int | str | None
_INVENTED = re.compile(r"unk__\d+")


class TensorType(NamedTuple):
    """Element type and shape of a tensor; a dimension is a number, a symbol, or None."""

    dtype: np.dtype[Any]
    shape: Sequence[Dim]


ShapeFunction = Callable[[gs.Node, Sequence[TensorType | None]], Sequence[TensorType | None]]


def tensor_type(info: onnx.ValueInfoProto) -> tuple[np.dtype[np.generic] | None, list[Dim] | None]:
    """dtype and shape of a value; (None, None) for a sequence, optional, map or sparse tensor."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return None, None
    tensor = info.type.tensor_type
    dtype = dtypes.to_numpy(tensor.elem_type) if tensor.elem_type else None
    return dtype, [_dim(dim) for dim in tensor.shape.dim] if tensor.HasField("shape") else None


def without_invented(shape: Sequence[Dim] | None) -> list[Dim] | None:
    """The shape without the names that ONNX inference invents for unknown sizes.

    Each inference counts them from 0, so two of them give one name to different sizes, which ONNX Runtime takes to be
    equal when it plans memory.
    """
    if shape is None:
        return None
    return [None if isinstance(dim, str) and _INVENTED.fullmatch(dim) else dim for dim in shape]


def kind(info: onnx.ValueInfoProto) -> str:
    """tensor_type, sequence_type, optional_type, map_type or sparse_tensor_type."""
    return info.type.WhichOneof("value") or "tensor_type"


def value_info(
    name: str, dtype: Any, shape: Sequence[Dim] | None, info: onnx.ValueInfoProto | None
) -> onnx.ValueInfoProto | None:
    """The ValueInfoProto of a tensor, or None when nothing is known. `info` is the one it was read from."""
    if info is not None and says(info, dtype, shape):
        result = onnx.ValueInfoProto()
        result.CopyFrom(info)
        result.name = name
        for dim in result.type.tensor_type.shape.dim if kind(result) == "tensor_type" else ():
            if dim.HasField("dim_value") and dim.dim_value < 0:
                dim.ClearField("dim_value")  # shape inference would compute with the -1
        return result
    if dtype is None:
        return None
    fresh = onnx.ValueInfoProto(name=name)
    if info is not None:
        fresh.CopyFrom(info)
        fresh.name = name
    fresh.type.tensor_type.elem_type = dtypes.from_numpy(dtype)
    _set_shape(fresh.type.tensor_type, shape)
    return fresh


def says(info: onnx.ValueInfoProto, dtype: Any, shape: Sequence[Dim] | None) -> bool:
    """Whether the ValueInfoProto states exactly this dtype and shape (a non-tensor type states neither)."""
    old_dtype, old_shape = tensor_type(info)
    if old_dtype is None or dtype is None:
        return old_dtype is None and dtype is None
    return old_dtype == dtype and old_shape == (None if shape is None else list(shape))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    which = dim.WhichOneof("value")
    if which == "dim_value":
        # Paddle writes -1 where the format wants nothing
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) if which == "dim_param" else None


def _set_shape(tensor: onnx.TypeProto.Tensor, shape: Sequence[Dim] | None) -> None:
    if shape is None:
        tensor.ClearField("shape")
        return
    denotations = [dim.denotation for dim in tensor.shape.dim]
    tensor.shape.ClearField("dim")
    tensor.shape.SetInParent()
    for axis, size in enumerate(shape):
        dim = tensor.shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        elif size is not None:
            dim.dim_value = int(size)
        if len(denotations) == len(shape) and denotations[axis]:
            dim.denotation = denotations[axis]
