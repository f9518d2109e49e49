"""Small stand-ins of a model for questions that do not depend on its weights: types and shapes stay, values go."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxprune.ir import exporter, types
from onnxprune.ir.model import Body, Model

_WEIGHT_ELEMENTS = 1024
_PROBE = "onnxprune.shape."


def typed(model: Model) -> onnx.ModelProto:
    """The model with its large weights as graph inputs of the same type: what type inference needs, at any size.

    Recorded shapes are left out, so that none is trusted that a change of the graph has outdated; element types stay,
    as hints for what lies behind operators without inference.
    """
    proto, heavy = _without_weights(model, fillable=False, shapes=False)
    weights = {tensor.name for tensor in proto.graph.initializer} | {constant.name for constant in heavy}
    _forget_shapes(proto.graph, weights)
    for node, twin in zip(model.graph.nodes, proto.graph.node, strict=True):
        _forget_inner_shapes(node, twin)
    inputs = {info.name for info in proto.graph.input}
    for constant in heavy:
        if constant.name not in inputs:
            proto.graph.input.append(types.value_info(constant.name, constant.export_dtype, list(constant.shape), None))
    return proto


def _forget_shapes(graph: onnx.GraphProto, but: Collection[str] = ()) -> None:
    for info in (*graph.value_info, *graph.output):
        if info.type.HasField("tensor_type") and info.name not in but:
            info.type.tensor_type.ClearField("shape")


def _forget_inner_shapes(node: gs.Node, proto: onnx.NodeProto) -> None:
    """The same in opened subgraphs; what others record belongs to the author of the model."""
    found = {attribute.name: attribute.g for attribute in proto.attribute}
    for name, value in node.attrs.items():
        if isinstance(value, Body):
            _forget_shapes(found[name], {tensor.name for tensor in found[name].initializer})
            for inner, twin in zip(value.graph.nodes, found[name].node, strict=True):
                _forget_inner_shapes(inner, twin)


def shape_probe(model: Model, names: Sequence[str], *, weights: bool) -> onnx.ModelProto:
    """A model that runs like this one and whose outputs are the shapes of the named tensors, as int64 vectors.

    Without `weights`, the large ones are zeros made at run time.
    """
    proto, heavy = (exporter.to_proto(model), []) if weights else _without_weights(model, fillable=True, shapes=True)
    graph = proto.graph
    for constant in heavy:
        shape = onnx.numpy_helper.from_array(np.array(constant.shape, np.int64), f"{_PROBE}of.{constant.name}")
        value = onnx.numpy_helper.from_array(np.zeros(1, constant.dtype))
        graph.initializer.append(shape)
        graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", [shape.name], [constant.name], value=value))
    made = {constant.name for constant in heavy}
    inputs = [info for info in graph.input if info.name not in made]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.extend(inputs)
    for index, name in enumerate(names):
        graph.node.append(onnx.helper.make_node("Shape", [name], [f"{_PROBE}{index}"]))
        graph.output.append(onnx.helper.make_tensor_value_info(f"{_PROBE}{index}", TensorProto.INT64, [None]))
    if not model.opset():
        proto.opset_import.append(onnx.helper.make_opsetid("", 13))
    return proto


def _without_weights(model: Model, *, fillable: bool, shapes: bool) -> tuple[onnx.ModelProto, list[gs.Constant]]:
    """The model without its large weights, and those. `fillable`: only such as ConstantOfShape can stand in for;
    `shapes`: whether those of inner tensors are written.
    """
    heavy: list[gs.Constant] = []

    def emit(constant: gs.Constant) -> onnx.TensorProto:
        plain = constant._export_dtype is None and np.dtype(constant.dtype).kind in "fiub" and model.opset() >= 9
        if math.prod(constant.shape) <= _WEIGHT_ELEMENTS or (fillable and not plain):
            return exporter.tensor_proto(constant)
        heavy.append(constant)
        return TensorProto()

    proto = exporter.assemble(model, emit, shapes=shapes)
    kept = [tensor for tensor in proto.graph.initializer if tensor.data_type]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto, heavy
