"""Model -> ModelProto. Untouched initializers come out bit for bit as they were stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs

from onnxprune.errors import ModelError
from onnxprune.ir import attributes, dtypes, types
from onnxprune.ir.model import Body, Model
from onnxprune.ir.stored import StoredSparse, StoredTensor

Emitter = Callable[[gs.Constant], onnx.TensorProto]


def to_proto(model: Model) -> onnx.ModelProto:
    """The whole model as one message. Above 2 GB only `save` works."""
    return assemble(model, tensor_proto)


def assemble(model: Model, emit: Emitter, *, shapes: bool = True) -> onnx.ModelProto:
    """`to_proto` with another way to write dense initializers; a StoredSparse stays sparse. Without `shapes`, those of
    inner tensors are left out.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.header)
    graph = proto.graph
    graph.node.extend(node_proto(node) for node in model.graph.nodes)
    graph.input.extend(_signature(tensor) for tensor in model.graph.inputs)
    graph.output.extend(_signature(tensor) for tensor in model.graph.outputs)
    tensors = _by_name(model)
    for tensor in tensors.values():
        if isinstance(tensor, gs.Constant):
            if isinstance(tensor._values, StoredSparse):
                graph.sparse_initializer.append(tensor._values.sparse_proto(tensor.name))
            else:
                graph.initializer.append(emit(tensor))
    _write_types(graph, tensors, _described if shapes else _typed)
    return proto


def _by_name(model: Model) -> dict[str, gs.Tensor]:
    tensors: dict[str, gs.Tensor] = {}
    for tensor in model.mentions():
        known = tensors.setdefault(tensor.name, tensor) if tensor.name else tensor
        if known is not tensor and (isinstance(tensor, gs.Constant) or isinstance(known, gs.Constant)):
            raise ModelError(f"two different tensors are called {tensor.name!r}, one of them an initializer")
    return tensors


def _write_types(
    graph: onnx.GraphProto,
    tensors: Mapping[str, gs.Tensor],
    describe: Callable[[gs.Tensor], onnx.ValueInfoProto | None],
) -> None:
    # the header's entries belong to names that no tensor had at import; a pass may have made one of that name since
    unclaimed = [info for info in graph.value_info if info.name not in tensors]
    del graph.value_info[:]
    signature = {info.name for info in (*graph.input, *graph.output)}
    described = (describe(tensor) for tensor in tensors.values() if tensor.name not in signature)
    graph.value_info.extend(info for info in described if info is not None)
    graph.value_info.extend(unclaimed)


def node_proto(node: gs.Node) -> onnx.NodeProto:
    """One node with its attributes in the order of `attrs`, docs and metadata included."""
    extras = getattr(node, "extras", None)
    proto = onnx.NodeProto()
    if extras is not None:
        proto.CopyFrom(extras)
        del proto.attribute[:]
    proto.op_type = node.op
    if node.name:
        proto.name = node.name
    if node.domain:
        proto.domain = node.domain
    proto.input.extend(tensor.name for tensor in node.inputs)
    proto.output.extend(tensor.name for tensor in node.outputs)
    proto.attribute.extend(_attribute(name, value) for name, value in node.attrs.items())
    if extras is not None:
        docs = {attribute.name: attribute.doc_string for attribute in extras.attribute}
        for attribute in proto.attribute:
            if attribute.name in docs:
                attribute.doc_string = docs[attribute.name]
    return proto


def graph_proto(body: Body) -> onnx.GraphProto:
    """An opened subgraph as a message. Captured tensors are used by name, not declared."""
    graph = assemble(body, tensor_proto).graph
    del graph.input[body.formal :]
    return graph


def _attribute(name: str, value: Any) -> onnx.AttributeProto:
    if not isinstance(value, Body):
        return attributes.write(name, value)
    return onnx.AttributeProto(name=name, type=onnx.AttributeProto.GRAPH, g=graph_proto(value))


def tensor_proto(constant: gs.Constant) -> onnx.TensorProto:
    """The TensorProto of an initializer, with its bytes inside."""
    payload = constant._values
    if isinstance(payload, StoredTensor) and constant._export_dtype is None:
        return payload.proto(constant.name)
    return onnx.numpy_helper.from_array(array_of(constant), constant.name)


def array_of(constant: gs.Constant) -> np.ndarray:
    """The values of an initializer in the dtype it is to be exported with."""
    values = constant.values
    if constant._export_dtype is None:
        return np.asarray(values)
    return np.asarray(values).astype(dtypes.to_numpy(dtypes.from_numpy(constant._export_dtype)))


def _described(tensor: gs.Tensor) -> onnx.ValueInfoProto | None:
    info = getattr(tensor, "info", None)
    if isinstance(tensor, gs.Constant):
        return None if info is None else types.value_info(tensor.name, tensor.export_dtype, tensor.shape, info)
    if tensor.shape is None and not (info is not None and types.says(info, tensor.dtype, None)):
        # the checker refuses a value_info without a shape, so only one that was read like that is written like that
        return None
    return types.value_info(tensor.name, tensor.dtype, tensor.shape, info)


def _typed(tensor: gs.Tensor) -> onnx.ValueInfoProto | None:
    """The element type alone, of what `_described` describes as a tensor."""
    if isinstance(tensor, gs.Constant) or tensor.dtype is None or tensor.shape is None:
        return _described(tensor)
    found = onnx.ValueInfoProto(name=tensor.name)
    found.type.tensor_type.elem_type = dtypes.from_numpy(tensor.dtype)
    return found


def _signature(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    dtype = tensor.export_dtype if isinstance(tensor, gs.Constant) else tensor.dtype
    info = types.value_info(tensor.name, dtype, tensor.shape, getattr(tensor, "info", None))
    return onnx.ValueInfoProto(name=tensor.name) if info is None else info
