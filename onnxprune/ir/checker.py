"""The ONNX checker, for models with operators that ONNX Runtime's optimisers put into the standard domain as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.checker

_RUNTIME = "com.microsoft"
# ONNX Runtime's operators of the standard domain, with the opset since which ONNX has them too (None: it has not)
RUNTIME_OPS: dict[str, int | None] = {"LayerNormalization": 17, "SimplifiedLayerNormalization": None}


def check_model(source: onnx.ModelProto | bytes | Path, *, full: bool = False) -> None:
    """Raises what onnx.checker.check_model raises; ONNX Runtime's own operators pass. `full` infers shapes as well."""
    subject = str(source) if isinstance(source, Path) else source
    try:
        onnx.checker.check_model(subject, full_check=full)
    except onnx.checker.ValidationError:
        model = _read(source)
        if not _set_apart(model):
            raise
        onnx.checker.check_model(model, full_check=full)


def runtime_op(op: str, opset: int) -> bool:
    """Whether ONNX Runtime runs this operator of the standard domain though ONNX does not have it at this opset."""
    since = RUNTIME_OPS.get(op, 1)
    return since is None or opset < since


def _read(source: onnx.ModelProto | bytes | Path) -> onnx.ModelProto:
    """A copy whose external weights, which the checker has seen, are graph inputs."""
    model = onnx.ModelProto()
    if isinstance(source, onnx.ModelProto):
        model.CopyFrom(source)
    else:
        model = (
            onnx.load(str(source), load_external_data=False)
            if isinstance(source, Path)
            else onnx.load_from_string(source)
        )
    outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    inputs = {info.name for info in model.graph.input}
    for tensor in outside:
        model.graph.initializer.remove(tensor)
        if tensor.name not in inputs:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(info)
    return model


def _set_apart(model: onnx.ModelProto) -> bool:
    """Moves ONNX Runtime's operators to its own domain, whose operators the checker takes as they are."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    found = [n for n in _nodes(model.graph) if n.domain in ("", "ai.onnx") and runtime_op(n.op_type, opset)]
    for node in found:
        node.domain = _RUNTIME
    if found and all(o.domain != _RUNTIME for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_RUNTIME, 1))
    return bool(found)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in _GRAPHS else ():
                yield from _nodes(inner)


_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
