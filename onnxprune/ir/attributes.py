"""Node attributes: plain Python values where the proto has a plain form, the AttributeProto itself elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import AttributeProto

from onnxprune.errors import ModelError


def read(proto: AttributeProto) -> Any:
    """int, float, str, a non-empty list of one of them, TensorProto, or a copy of the AttributeProto."""
    reader = None if proto.ref_attr_name else _READERS.get(proto.type)
    value = reader(proto) if reader else None
    if value is not None:
        return value
    raw = AttributeProto()
    raw.CopyFrom(proto)
    return raw


def write(name: str, value: Any) -> AttributeProto:
    """The AttributeProto of a value that `read` returns (numpy scalars, arrays and tuples are taken too)."""
    proto = AttributeProto()
    if isinstance(value, AttributeProto):
        proto.CopyFrom(value)
        proto.name = name
        return proto
    proto.name = name
    if isinstance(value, list | tuple):
        _write_list(proto, value)
    elif isinstance(value, onnx.TensorProto | np.ndarray):
        proto.type = AttributeProto.TENSOR
        proto.t.CopyFrom(value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(value))
    else:
        _write_scalar(proto, value)
    return proto


def _write_scalar(proto: AttributeProto, value: Any) -> None:
    if isinstance(value, bool | int | np.integer | np.bool_):
        proto.type, proto.i = AttributeProto.INT, int(value)
    elif isinstance(value, float | np.floating):
        proto.type, proto.f = AttributeProto.FLOAT, _float32(float(value))
    elif isinstance(value, str | bytes):
        proto.type, proto.s = AttributeProto.STRING, _bytes(value)
    else:
        raise ModelError(f"attribute {proto.name!r} holds a {type(value).__name__}, which ONNX cannot store")


def _write_list(proto: AttributeProto, values: Sequence[Any]) -> None:
    if all(isinstance(value, int | np.integer) for value in values):
        proto.type = AttributeProto.INTS
        proto.ints.extend(int(value) for value in values)
    elif all(isinstance(value, int | float | np.number) for value in values):
        proto.type = AttributeProto.FLOATS
        proto.floats.extend(_float32(float(value)) for value in values)
    elif all(isinstance(value, str | bytes) for value in values):
        proto.type = AttributeProto.STRINGS
        proto.strings.extend(_bytes(value) for value in values)
    else:
        raise ModelError(f"attribute {proto.name!r} holds a list of mixed values, which ONNX cannot store")


def _float32(value: float) -> float:
    # protobuf maps a double that rounds to more than the largest float32 to infinity or refuses it, by version
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _texts(proto: AttributeProto) -> list[str] | None:
    texts = [_text(value) for value in proto.strings]
    return None if not texts or None in texts else [text for text in texts if text is not None]


def _tensor(proto: AttributeProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(proto.t)
    return copy


_READERS: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.INT: lambda proto: proto.i,
    AttributeProto.FLOAT: lambda proto: proto.f,
    AttributeProto.STRING: lambda proto: _text(proto.s),
    AttributeProto.INTS: lambda proto: list(proto.ints) or None,
    AttributeProto.FLOATS: lambda proto: list(proto.floats) or None,
    AttributeProto.STRINGS: _texts,
    AttributeProto.TENSOR: _tensor,
}
