"""Shapes: static inference in place, and the concrete shape of every tensor for given input shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.shape_inference
import onnx_graphsurgeon as gs

from onnxprune.errors import ModelError
from onnxprune.ir import exporter, types
from onnxprune.ir.model import Model
from onnxprune.ir.query import feed_inputs

_WEIGHT_ELEMENTS = 1024


def light_proto(model: Model) -> onnx.ModelProto:
    """The model with its large weights turned into graph inputs of the same type: all that type inference needs."""
    heavy: list[gs.Constant] = []

    def emit(constant: gs.Constant) -> onnx.TensorProto:
        if int(np.prod(constant.shape, dtype=np.float64)) <= _WEIGHT_ELEMENTS:
            return exporter.tensor_proto(constant)
        heavy.append(constant)
        return onnx.TensorProto()

    proto = exporter.assemble(model, emit)
    kept = [tensor for tensor in proto.graph.initializer if tensor.data_type]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    inputs = {info.name for info in proto.graph.input}
    for constant in heavy:
        if constant.name not in inputs:
            proto.graph.input.append(types.value_info(constant.name, constant.export_dtype, list(constant.shape), None))
    return proto


def infer_shapes(model: Model) -> None:
    """Fills dtype and shape of the graph's Variables by ONNX shape inference, in place.

    What is recorded already stays unless inference knows better. Operators without inference leave theirs as they are.
    """
    inferred = _infer(light_proto(model), "infer shapes")
    known = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
    for tensor in model.all_tensors():
        if isinstance(tensor, gs.Variable) and tensor.name in known:
            dtype, shape = types.tensor_type(known[tensor.name])
            if dtype is not None:
                tensor.dtype = dtype
                tensor.shape = shape if shape is not None else tensor.shape


def _infer(proto: onnx.ModelProto, task: str) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=False)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"cannot {task}: {' '.join(str(error).split())[:300]}") from error


def shapes_for(model: Model, inputs: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The concrete shape of every tensor when the inputs have the given shapes.

    Inputs that are not named keep their static shape. Raises ModelError when a shape does not fit the model's inputs.
    """
    fixed = model.copy()
    _set_inputs(fixed, inputs)
    clear_shapes(fixed)
    infer_shapes(fixed)
    return {tensor.name: tuple(int(dim) for dim in tensor.shape) for tensor in fixed.all_tensors() if is_static(tensor)}


def is_static(tensor: gs.Tensor) -> bool:
    """Whether every dimension of the tensor is a number."""
    return tensor.shape is not None and all(isinstance(dim, int) and dim >= 0 for dim in tensor.shape)


def clear_shapes(model: Model) -> None:
    """Forgets the shapes of everything but graph inputs and initializers, so that nothing stale is trusted."""
    inputs = {tensor.name for tensor in model.graph.inputs}
    for tensor in model.all_tensors():
        if isinstance(tensor, gs.Variable) and tensor.name not in inputs and tensor.dtype is not None:
            tensor.shape = None


def _set_inputs(model: Model, inputs: Mapping[str, Sequence[int]]) -> None:
    by_name = {tensor.name: tensor for tensor in feed_inputs(model)}
    for name, shape in inputs.items():
        tensor = by_name.get(name)
        if tensor is None:
            raise ModelError(f"the model has no input {name!r}; its inputs are {', '.join(by_name)}")
        declared = tensor.shape
        fits = declared is None or (
            len(declared) == len(shape)
            and all(not isinstance(dim, int) or dim == size for dim, size in zip(declared, shape, strict=True))
        )
        if not fits:
            raise ModelError(f"input {name!r} of shape {declared} cannot take shape {list(shape)}")
        tensor.shape = [int(dim) for dim in shape]
