"""Shapes: static inference in place, and the concrete shape of every tensor for given input shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx.shape_inference
import onnx_graphsurgeon as gs

from onnxprune import sandbox
from onnxprune.errors import ModelError
from onnxprune.ir import extra_shapes, light, loop_shapes, trial, types
from onnxprune.ir.bodies import every_tensor, graphs
from onnxprune.ir.functions import check_functions
from onnxprune.ir.model import Model
from onnxprune.ir.query import feed_inputs, has_subgraph

_PROBE_SECONDS = 120.0
_SEQUENCE = 32  # tokens, where the model leaves the length open
_IMAGE = 64  # pixels a side, where the model leaves the size open
_TENSOR = "tensor_type"
_LOOPS_IN_A_ROW = 16  # one behind or inside the other: each needs the sizes that the last one keeps


def infer_shapes(model: Model) -> None:
    """Fills dtype and shape of the graph's Variables by ONNX shape inference, in place.

    `extra_shapes` knows some operators that ONNX has no inference for.

    Inference starts from the inputs and weights alone. A dimension that it knows as a number replaces what is recorded;
    where it knows none, or the operator has no inference, what is recorded stays (`clear_shapes` forgets it first).
    Values are not propagated (an untrusted model could ask for any memory that way), so shapes that are computed at run
    time stay symbolic: `shapes_for` finds those. Raises ModelError when types or shapes contradict each other.
    """
    check_functions(model.header, (node.op for node in model.graph.nodes))
    graphs(model)  # opens the subgraphs, before they are written for the inference
    _infer_once(model)
    for _ in range(_LOOPS_IN_A_ROW):
        before = loop_shapes.known_sizes(model)
        loop_shapes.declare_kept_sizes(model, _types)
        if before:
            _infer_once(model)
        if before == loop_shapes.known_sizes(model):
            break


def _infer_once(model: Model) -> None:
    known = _types(model)
    for graph in graphs(model):
        for tensor in graph.all_tensors():
            if isinstance(tensor, gs.Variable) and tensor.name in known:
                _record(tensor, known[tensor.name])
    graphs(model)  # what bodies capture takes over what was found


def _types(model: Model) -> dict[str, onnx.ValueInfoProto]:
    return extra_shapes.infer(light.typed(model), model.graph.nodes, _infer)


def shapes_for(model: Model, inputs: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The concrete shape of every tensor when the inputs have the given shapes.

    Static inference first; what depends on shape arithmetic is found by running the graph once in the sandbox, with
    zero weights, on zeros, returning shapes only. Shapes that depend on values (NonZero) are those of such a run.
    Inside subgraphs only static inference counts.
    Sequences, maps and optionals have no shape and are left out. Inputs that are not named keep their declared shape,
    with 1 for symbolic dimensions. Where zeros lead an If or a Loop to a path that cannot run, what static inference
    does not know is left out. Raises ModelError when a shape does not fit the model.
    """
    fixed = model.copy()
    _set_inputs(fixed, inputs)
    clear_shapes(fixed)
    infer_shapes(fixed)
    found = every_tensor(fixed)
    shapes = {name: tuple(int(dim) for dim in tensor.shape) for name, tensor in found.items() if is_static(tensor)}
    outer = fixed.all_tensors()
    unknown = [tensor.name for tensor in outer if tensor.name not in shapes and _is_tensor(tensor)]
    if unknown:
        try:
            shapes.update(zip(unknown, _probe(fixed, unknown), strict=True))
        except ModelError:
            if not any(has_subgraph(node) for node in fixed.graph.nodes):
                raise
    return {name: shapes[name] for name in found if name in shapes}


def assumed_shape(shape: Sequence[types.Dim]) -> tuple[int, ...]:
    """The shape of one sample of an input whose shape leaves sizes open: 1 on the first axis, else those of an image
    from four axes on, and of a sequence below. Some exporters write 0 or less for a size that they do not know.
    """
    size = _IMAGE if len(shape) >= 4 else _SEQUENCE
    return tuple(
        dim if isinstance(dim, int) and dim > 0 else (1 if axis == 0 else size) for axis, dim in enumerate(shape)
    )


def is_static(tensor: gs.Tensor) -> bool:
    """Whether every dimension of the tensor is a number."""
    return tensor.shape is not None and all(isinstance(dim, int) and dim >= 0 for dim in tensor.shape)


def clear_shapes(model: Model) -> None:
    """Forgets the shapes of everything but graph inputs and initializers, so that nothing stale is trusted."""
    for graph in graphs(model):
        inputs = {tensor.name for tensor in graph.graph.inputs}
        for tensor in graph.all_tensors():
            if isinstance(tensor, gs.Variable) and tensor.name not in inputs and tensor.dtype is not None:
                tensor.shape = None


def _infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=False)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"the model's shapes do not fit: {sandbox.sanitise(str(error))}") from error


def _probe(model: Model, names: Sequence[str]) -> list[tuple[int, ...]]:
    feeds = {tensor.name: (str(tensor.dtype), tuple(tensor.shape)) for tensor in feed_inputs(model)}
    try:
        small = light.shape_probe(model, names, weights=False).SerializeToString()
        return sandbox.call(trial.output_shapes, small, feeds, seconds=_PROBE_SECONDS)
    except ModelError:
        # some kernels insist on constant weights; the whole model says it then, or gives the real reason
        whole = light.shape_probe(model, names, weights=True).SerializeToString()
        return sandbox.call(trial.output_shapes, whole, feeds, seconds=_PROBE_SECONDS)


def _record(tensor: gs.Variable, info: onnx.ValueInfoProto) -> None:
    dtype, shape = types.tensor_type(info)
    if dtype is not None:
        tensor.dtype, tensor.shape = dtype, _merge(types.without_invented(shape), tensor.shape)
    elif types.kind(info) != _TENSOR and getattr(tensor, "info", None) is None:
        tensor.type, tensor.info = types.kind(info), info


def _merge(inferred: list[types.Dim] | None, recorded: Sequence[types.Dim] | None) -> list[types.Dim] | None:
    if inferred is None:
        return None if recorded is None else list(recorded)
    if recorded is None or len(recorded) != len(inferred):
        return inferred
    return [new if isinstance(new, int) or old is None else old for new, old in zip(inferred, recorded, strict=True)]


def _is_tensor(tensor: gs.Tensor) -> bool:
    return getattr(tensor, "type", _TENSOR) == _TENSOR


def _set_inputs(model: Model, inputs: Mapping[str, Sequence[int]]) -> None:
    by_name = {tensor.name: tensor for tensor in feed_inputs(model)}
    for name in inputs:
        if name not in by_name:
            raise ModelError(f"the model has no input {name!r}; its inputs are {', '.join(by_name)}")
    for name, tensor in by_name.items():
        # some exporters write 0 for a size that they do not know
        declared = None if tensor.shape is None else [dim or None for dim in tensor.shape]
        shape = list(inputs.get(name, [dim if isinstance(dim, int) else 1 for dim in declared or []]))
        pairs = zip(declared or [], shape, strict=False)
        if declared is not None and (
            len(declared) != len(shape) or any(isinstance(dim, int) and dim != size for dim, size in pairs)
        ):
            raise ModelError(f"input {name!r} of shape {declared} cannot take shape {shape}")
        tensor.shape = [int(dim) for dim in shape]
