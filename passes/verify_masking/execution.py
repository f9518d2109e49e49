"""Runs models for the comparison: ONNX Runtime without optimisation, or onnx's reference evaluator in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError

Array = npt.NDArray[Any]
Call = Mapping[str, Array]
_PROTOBUF_LIMIT = 1_500_000_000  # bytes; protobuf refuses 2 GB


def run(model: onnx.ModelProto, calls: Iterable[Call], outputs: Sequence[str] = ()) -> list[dict[str, Array]]:
    """Outputs of every call, by name. `outputs` may name any tensor; all graph outputs otherwise.

    Raises ModelError, in one line, when ONNX Runtime does not take the model or the feed.
    """
    import onnxruntime as ort  # imported here: it is slow to load and only needed to run

    names = list(outputs) or [t.name for t in model.graph.output]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    results = []
    try:
        with TemporaryDirectory() as folder:
            source = _source(with_outputs(model, names), Path(folder))
            session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        wanted = {i.name for i in session.get_inputs()} | {i.name for i in session.get_overridable_initializers()}
        for call in calls:
            feed = {name: array for name, array in call.items() if name in wanted}
            results.append(dict(zip(names, session.run(names, feed), strict=True)))
    except _failures() as error:
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"ONNX Runtime cannot run the model: {text}") from error
    return results


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
    """Outputs in float64 by onnx's reference evaluator: slow, for small models; decides what rounding leaves open."""
    from onnx.reference import ReferenceEvaluator

    names = [t.name for t in model.graph.output]
    evaluator = ReferenceEvaluator(as_float64(model))
    results = []
    for call in calls:
        feed = {n: a.astype(np.float64) if a.dtype in (np.float32, np.float16) else a for n, a in call.items()}
        with np.errstate(all="ignore"):
            results.append(dict(zip(names, map(np.asarray, evaluator.run(None, feed)), strict=True)))
    return results


def as_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every float32 and float16 tensor, constant and cast is float64."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    graph = twin.graph
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
    return twin


_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
