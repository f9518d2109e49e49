"""The entry check for models from anywhere: is it well-formed, bounded, and does ONNX Runtime run it?

ONNX Runtime and the checker accept much that only fails when the model runs (Conv with no groups, kernel shapes that
contradict the weight), and some of it hangs or kills the process. So the model is read by our importer, guarded against
expansion without bound, checked by onnx, and run once on neutral inputs, the last two in the sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx_graphsurgeon as gs

from onnxprune import sandbox
from onnxprune.errors import ModelError
from onnxprune.ir import checker, trial
from onnxprune.ir.files import load
from onnxprune.ir.functions import check_functions
from onnxprune.ir.importer import from_proto
from onnxprune.ir.model import Model

_SPARE_MEMORY = 2 << 30
_MEMORY_PER_BYTE = 3


def validate(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    memory_bytes: int | None = None,
    seconds: float = 30.0,
) -> Model:
    """Reads the model, checks it, runs it once, and returns it.

    `inputs` are values to run with (otherwise neutral ones, with symbolic dimensions at several sizes), `memory_bytes`
    bounds the address space (default: 2 GiB and three times the model), `seconds` the time.

    Raises ModelError when the model is malformed or cannot run, LimitError when it exceeds a limit, UsageError when
    there is no such file.
    """
    if isinstance(source, onnx.ModelProto):
        model = from_proto(source)
        data = _serialise(source)
        subject: Path | bytes = data
        size = len(data)
    else:
        model = load(source)
        subject = Path(source).absolute()
        size = sum(path.stat().st_size for path in (subject, *model.side_files))
    check_functions(model.header, (node.op for node in model.graph.nodes))
    _check_weights(model)
    limit = _SPARE_MEMORY + _MEMORY_PER_BYTE * size if memory_bytes is None else memory_bytes
    sandbox.call(check_and_run, subject, inputs, memory_bytes=limit, seconds=seconds, label="a trial run")
    return model


def check_and_run(source: Path | bytes, inputs: Mapping[str, np.ndarray] | None) -> None:
    """The part of `validate` that runs in the sandbox."""
    try:
        checker.check_model(source)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"the ONNX checker refuses the model: {sandbox.sanitise(str(error))}") from error
    trial.run_once(source, inputs)


def _check_weights(model: Model) -> None:
    # ONNX Runtime never returns from a convolution without channels
    for node in model.graph.nodes:
        if node.op in ("Conv", "ConvTranspose") and _has_empty_weight(node):
            raise ModelError(f"node {node.name or node.op!r} has a weight without elements")


def _has_empty_weight(node: gs.Node) -> bool:
    return any(isinstance(tensor, gs.Constant) and 0 in tensor.shape for tensor in node.inputs)


def _serialise(proto: onnx.ModelProto) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except ValueError:
        raise ModelError("the model is above 2 GB: save it with external data and give its path") from None
