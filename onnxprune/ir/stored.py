"""Initializers as a model file stores them: decoded when read, re-emitted bit for bit when untouched.

The bytes are held outside the protobuf message (as `bytes` or as a view of a memory-mapped file), so a byte-addressable
tensor is decoded without a copy and the message of a large model can be freed.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxprune.errors import ModelError
from onnxprune.ir import dtypes
from onnxprune.ir.header import copy_fields

Buffer = bytes | np.ndarray[Any, np.dtype[np.uint8]]
DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


class Stored(LazyValues):  # type: ignore[misc]
    """What a Constant holds until new values are assigned. `nbytes` counts the decoded array."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    nbytes: int

    def load(self) -> np.ndarray:
        """The decoded array."""
        raise NotImplementedError


class StoredTensor(Stored):
    """A TensorProto: its header (everything but raw_data) and its bytes; typed fields stay in the header."""

    def __init__(self, header: TensorProto, raw: Buffer | None) -> None:
        self.tensor = header
        self.raw = raw
        self.shape = tuple(header.dims)
        self.dtype = dtypes.to_numpy(header.data_type)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._array: np.ndarray | None = None

    @property
    def stored_bytes(self) -> int:
        """Size in the file, headers aside."""
        return self.tensor.ByteSize() if self.raw is None else len(self.raw)

    def load(self) -> np.ndarray:
        """The decoded array; a read-only view of the stored bytes where the element type allows it."""
        if self._array is None:
            self._array = self._decode()
            self._array.flags.writeable = False
        return self._array

    def _decode(self) -> np.ndarray:
        if self.raw is None or dtypes.is_packed(self.tensor.data_type):
            try:
                return np.asarray(onnx.numpy_helper.to_array(self.proto(self.tensor.name))).reshape(self.shape)
            except (ValueError, TypeError) as error:
                raise ModelError(f"initializer {self.tensor.name!r} cannot be decoded: {error}") from error
        if self.nbytes == 0:
            return np.empty(self.shape, self.dtype)
        return np.frombuffer(self.raw, self.dtype).reshape(self.shape)

    def proto(self, name: str) -> TensorProto:
        """The TensorProto as it was stored, under the given name."""
        proto = TensorProto()
        proto.CopyFrom(self.tensor)
        proto.name = name
        if self.raw is not None:
            proto.raw_data = bytes(self.raw)
        return proto


class StoredSparse(Stored):
    """A SparseTensorProto. Its dense form is made when it is read."""

    def __init__(self, proto: onnx.SparseTensorProto) -> None:
        self.tensor = proto
        self.shape = tuple(proto.dims)
        self.dtype = dtypes.to_numpy(proto.values.data_type)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self.stored_bytes = proto.ByteSize()

    def load(self) -> np.ndarray:
        """The dense array; values that are not listed are zero."""
        return densify(self.tensor)

    def sparse_proto(self, name: str) -> onnx.SparseTensorProto:
        """The SparseTensorProto as it was stored, under the given name."""
        proto = onnx.SparseTensorProto()
        proto.CopyFrom(self.tensor)
        proto.values.name = name
        return proto


def release(payload: object) -> None:
    """Lets the pages of a memory-mapped tensor go; they are read again when needed. Nothing else is affected."""
    base: Any = payload.raw if isinstance(payload, StoredTensor) else None
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def densify(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """The dense array of a sparse tensor, in its own dtype. Raises ModelError for indices outside its shape."""
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    flat = indices if indices.ndim == 1 else _linear(indices, dense.shape)
    if flat.shape != values.shape or (flat.size and (flat.min() < 0 or flat.max() >= dense.size)):
        raise ModelError(f"sparse initializer {sparse.values.name!r} has indices outside its shape {dense.shape}")
    dense.reshape(-1)[flat] = values
    return dense


def _linear(indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if indices.ndim != 2 or indices.shape[1] != len(shape) or (indices < 0).any() or (indices >= shape).any():
        return np.array([-1])
    strides = np.cumprod((1, *shape[:0:-1]))[::-1]
    return np.asarray(indices @ strides)


def store(proto: TensorProto) -> StoredTensor:
    """Takes a TensorProto apart. Raises ModelError when its data do not fit its dims, or lie in another file."""
    if proto.data_location == TensorProto.EXTERNAL:
        raise ModelError(f"initializer {proto.name!r} lies in another file; read the model by its path")
    header = TensorProto()
    copy_fields(proto, header, skip=("raw_data",))
    raw = proto.raw_data if proto.HasField("raw_data") else None
    _check(header, raw)
    return StoredTensor(header, raw)


def _check(header: TensorProto, raw: bytes | None) -> None:
    elements = element_count(header)
    typed = [name for name in DATA_FIELDS if len(getattr(header, name))]
    if len(typed) + (raw is not None and len(raw) > 0) > 1:
        raise ModelError(f"initializer {header.name!r} carries its data twice ({', '.join(typed)} and raw_data)")
    if raw is not None and not typed:
        expected, found, unit = dtypes.packed_size(header.data_type, elements), len(raw), "bytes"
        if header.data_type == TensorProto.STRING:
            raise ModelError(f"initializer {header.name!r} stores strings as raw_data, which ONNX does not allow")
    else:
        expected, found, unit = _typed_size(header, elements), len(getattr(header, typed[0])) if typed else 0, "values"
        field = onnx.helper.tensor_dtype_to_field(header.data_type)
        if typed and typed[0] != field:
            raise ModelError(f"initializer {header.name!r} keeps its data in {typed[0]} instead of {field}")
    if expected is not None and expected != found:
        dims = list(header.dims)
        raise ModelError(f"initializer {header.name!r} of shape {dims} needs {expected} {unit} but has {found}")


def element_count(header: TensorProto) -> int:
    """The product of dims. Raises ModelError for a negative dimension or an undefined element type."""
    if any(dim < 0 for dim in header.dims):
        raise ModelError(f"initializer {header.name!r} has a negative dimension: {list(header.dims)}")
    dtypes.to_numpy(header.data_type)
    return math.prod(header.dims)


def _typed_size(header: TensorProto, elements: int) -> int | None:
    if header.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * elements
    return dtypes.packed_size(header.data_type, elements) if dtypes.is_packed(header.data_type) else elements
