"""Runs models for the comparison: ONNX Runtime without optimisation, or onnx's reference evaluator in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.checker import runtime_op
from passes.verify_masking.subgraphs import all_graphs

Array = npt.NDArray[Any]
Call = Mapping[str, Array]
_PROTOBUF_LIMIT = 1_500_000_000  # bytes; protobuf refuses 2 GB


def run(model: onnx.ModelProto, calls: Iterable[Call], outputs: Sequence[str] = ()) -> list[dict[str, Array]]:
    """Outputs of every call, by name. `outputs` may name any tensor; all graph outputs otherwise.

    Raises ModelError, in one line, when ONNX Runtime does not take the model or the feed.
    """
    names = list(outputs) or [t.name for t in model.graph.output]
    with _reported():
        session = _session(with_outputs(model, names))
        return [_run(session, names, call) for call in calls]


def describe(
    model: onnx.ModelProto, call: Call, names: Sequence[str]
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and element type of tensors in one call, without keeping their values: there may be many."""
    twin = with_outputs(model, names)
    if twin is model:
        twin = onnx.ModelProto()
        twin.CopyFrom(model)
    with _reported():
        types = [_DTYPES.get(output.type, np.float32) for output in _session(twin).get_outputs()]
        del twin.graph.output[:]
        for k, name in enumerate(names):
            twin.graph.node.append(helper.make_node("Shape", [name], [f"{name}/shape{k}"]))
            twin.graph.output.append(onnx.ValueInfoProto(name=f"{name}/shape{k}"))
        found = _run(_session(twin), [t.name for t in twin.graph.output], call)
    shapes = [tuple(int(n) for n in values) for values in found.values()]
    return {name: (shape, np.dtype(dtype)) for name, shape, dtype in zip(names, shapes, types, strict=True)}


_DTYPES = {"tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
           "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
           "tensor(bfloat16)": ml_dtypes.bfloat16}  # fmt: skip


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime as ort  # imported here: it is slow to load and only needed to run

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with TemporaryDirectory() as folder:
        source = _source(model, Path(folder))
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _run(session: Any, names: Sequence[str], call: Call) -> dict[str, Array]:
    wanted = {i.name for i in session.get_inputs()} | {i.name for i in session.get_overridable_initializers()}
    feed = {name: array for name, array in call.items() if name in wanted}
    return dict(zip(names, session.run(list(names), feed), strict=True))


@contextmanager
def _reported() -> Iterator[None]:
    """Turns the runtime's failures into ModelErrors of one line."""
    try:
        yield
    except _failures() as error:
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"ONNX Runtime cannot run the model: {text}") from error


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return (ValueError, *(getattr(state, kind) for kind in kinds))


def _source(model: onnx.ModelProto, folder: Path) -> bytes | str:
    if sum(len(t.raw_data) for t in model.graph.initializer) < _PROTOBUF_LIMIT:
        return bytes(model.SerializeToString())
    path = folder / "model.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="model.data")
    return str(path)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A model that computes these tensors; the model itself when they are its outputs."""
    known = {t.name: t for t in model.graph.output}
    if list(known) == list(names):
        return model
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    del twin.graph.output[:]
    passed = {t.name: t for t in (*model.graph.input, *model.graph.output)}
    for name in names:
        twin.graph.output.append(passed.get(name) or onnx.ValueInfoProto(name=name))
    return twin


def run_float64(model: onnx.ModelProto, calls: Iterable[Call]) -> list[dict[str, Array]]:
    """Outputs in float64 by onnx's reference evaluator: slow, for small models; decides what rounding leaves open.

    Raises ModelError where the evaluator lacks an operator, or a form of it.
    """
    from onnx.reference import ReferenceEvaluator

    names = [t.name for t in model.graph.output]
    evaluator = ReferenceEvaluator(as_float64(model))
    results = []
    for call in calls:
        feed = {n: a.astype(np.float64) if a.dtype in (np.float32, np.float16) else a for n, a in call.items()}
        try:
            with np.errstate(all="ignore"):
                values = evaluator.run(None, feed)
        except _EVALUATOR_ERRORS as error:
            raise ModelError(f"onnx's reference evaluator cannot run the model: {error}") from error
        results.append(dict(zip(names, map(np.asarray, values), strict=True)))
    return results


_EVALUATOR_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


def evaluable(model: onnx.ModelProto) -> bool:
    """Whether onnx's reference evaluator knows all operators: it does not know those of ONNX Runtime."""
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD), 1)
    return all(node.domain in _STANDARD and not runtime_op(node.op_type, opset) for node in model.graph.node)


_STANDARD = ("", "ai.onnx")


def as_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every float32 and float16 tensor, constant and cast is float64."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for graph in all_graphs(twin.graph):
        _widen_graph(graph)
    return twin


def _widen_graph(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in _NARROW:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.name in ("to", "dtype") and attribute.i in _NARROW:
                attribute.i = TensorProto.DOUBLE
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float64))
            node.attribute.append(helper.make_attribute("value", zero))


_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
