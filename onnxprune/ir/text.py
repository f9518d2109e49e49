"""A stable text form of a model: one line a tensor or node, for goldens and for `--dump-ir`."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto

from onnxprune.ir import dtypes
from onnxprune.ir.exporter import array_of, graph_proto
from onnxprune.ir.model import Body, Model
from onnxprune.ir.query import initializers

_SHOWN_ELEMENTS = 8


def text(model: Model) -> str:
    """The model as text. Node names, docs and metadata are left out; everything that is computed with is in."""
    header = model.header
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in header.opset_import)
    inputs = {tensor.name for tensor in model.graph.inputs}
    constants = [tensor for name, tensor in initializers(model).items() if name not in inputs]
    lines = [f"ir {header.ir_version}, opset {opsets}"]
    lines += [f"input {_described(tensor)}" for tensor in model.graph.inputs]
    lines += [f"const {_described(tensor)}" for tensor in constants]
    lines += [_node(node) for node in model.graph.nodes]
    lines += [f"output {_described(tensor)}" for tensor in model.graph.outputs]
    lines += [f"function {f.domain}::{f.name}:{f.overload} {_digest(f)}" for f in header.functions]
    return "\n".join(lines) + "\n"


def _described(tensor: gs.Tensor) -> str:
    if isinstance(tensor, gs.Constant):
        return f"{tensor.name} {_type(tensor.export_dtype, list(tensor.shape))} {_values(tensor)}"
    info = getattr(tensor, "info", None)
    if tensor.dtype is None and info is not None and info.type.WhichOneof("value") not in (None, "tensor_type"):
        return f"{tensor.name} {info.type.WhichOneof('value')} {_digest(info.type)}"
    return f"{tensor.name} {_type(tensor.dtype, tensor.shape)}"


def _type(dtype: Any, shape: Any) -> str:
    name = "?" if dtype is None else dtypes.name_of(dtypes.from_numpy(dtype))
    dims = "..." if shape is None else ",".join("?" if dim is None else str(dim) for dim in shape)
    return f"{name}[{dims}]"


def _values(tensor: gs.Constant) -> str:
    array = array_of(tensor)
    if array.size <= _SHOWN_ELEMENTS and array.dtype.kind in "iub":
        return f"= {array.tolist()}"
    return f"#{array_digest(array)}"


def array_digest(array: np.ndarray) -> str:
    """The first 10 hex digits of the SHA-256 of dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    digest.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())
    return digest.hexdigest()[:10]


def _node(node: gs.Node) -> str:
    outputs = ", ".join(tensor.name or "_" for tensor in node.outputs)
    inputs = ", ".join(tensor.name or "_" for tensor in node.inputs)
    shown = ", ".join(f"{name}={_attribute(value)}" for name, value in sorted(node.attrs.items()))
    overload = getattr(getattr(node, "extras", None), "overload", "")
    op = f"{node.domain}::{node.op}" if node.domain not in (None, "", "ai.onnx") else node.op
    return f"{outputs} = {op}{f':{overload}' if overload else ''}({inputs})" + (f" {{{shown}}}" if shown else "")


def _attribute(value: Any) -> str:
    if isinstance(value, onnx.TensorProto):
        array = onnx.numpy_helper.to_array(value)
        return f"{dtypes.name_of(value.data_type)}{list(array.shape)} #{array_digest(array)}".replace(", ", ",")
    if isinstance(value, Body):
        return f"graph {_digest(graph_proto(value))}"
    if isinstance(value, AttributeProto):
        kind = AttributeProto.AttributeType.Name(value.type).lower()
        return f"{kind} {_digest(value)}"
    return f"{value:.9g}" if isinstance(value, float) else repr(value)


def _digest(message: Any) -> str:
    return "#" + hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:10]
