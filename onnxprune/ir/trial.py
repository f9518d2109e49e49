"""Running a model once in ONNX Runtime, inside the sandbox: the model may crash or exhaust the process."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import LimitError, ModelError
from onnxprune.sandbox import out_of_memory, sanitise

_FOLDING_CAP = ("optimization.constant_folding_max_output_size_in_bytes", str(1 << 20))
# Sizes to try where a dimension is symbolic: 1 suits sequences and vectors, the others networks that shrink their input
_SYMBOLIC_SIZES = (1, 16, 64, 224, 512)
_ERROR_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (Load model from .* failed:)?")
_LARGEST_FEED = 1 << 26
_NUMPY_TYPES = {
    "float": "float32",
    "double": "float64",
    "string": "object",
    "bfloat16": "bfloat16",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
}


def run_once(source: Path | bytes, inputs: Mapping[str, np.ndarray] | None = None) -> None:
    """Loads a model and runs it once. ModelError with the runtime's reason when every attempt fails.

    Without `inputs` it gets neutral ones, and symbolic dimensions are tried at several sizes. A model with inputs that
    are no tensors is then only loaded.
    """
    session = open_session(source)
    reason = ""
    for feeds in _attempts(session) if inputs is None else [inputs]:
        if feeds is None:
            return
        try:
            session.run(None, feeds)
            return
        except runtime_errors() as error:
            reason = reason or _reason(error)
    raise ModelError(f"the model cannot run: {reason or 'its inputs are too large'}")


def output_shapes(source: bytes, feeds: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """The values of a model's int64 vector outputs, as tuples. `feeds` gives dtype and shape of each input."""
    session = open_session(source)
    reason = ""
    for value in (0, 1):
        inputs = {name: _neutral(np.dtype(dtype), shape, value) for name, (dtype, shape) in feeds.items()}
        try:
            return [tuple(int(dim) for dim in output) for output in session.run(None, inputs)]
        except runtime_errors() as error:
            reason = reason or _reason(error)
    raise ModelError(f"the model cannot run with these input shapes: {reason}")


def open_session(source: Path | bytes) -> Any:
    """A CPU session without graph optimisation, one thread, quiet. ModelError when the runtime refuses the model."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry(*_FOLDING_CAP)
    model: Any = source if isinstance(source, bytes) else str(source)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        raise ModelError(f"ONNX Runtime refuses the model: {_reason(error)}") from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own classes have no common base below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for _, kind in inspect.getmembers(state, inspect.isclass) if issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, UnicodeDecodeError)


def _reason(error: Exception) -> str:
    if out_of_memory(str(error)):
        raise LimitError("running the model takes more memory than the limit; raise --max-memory") from error
    return sanitise(_ERROR_CODE.sub("", str(error)))


def _attempts(session: Any) -> Iterator[dict[str, np.ndarray] | None]:
    """Feeds to try in turn; None when inputs of this kind cannot be made."""
    try:
        inputs = [(entry.name, _numpy_type(entry.type), entry.shape) for entry in session.get_inputs()]
    except UnicodeDecodeError:
        raise ModelError("an input name is not valid UTF-8; export the model again") from None
    if any(dtype is None for _, dtype, _ in inputs):
        yield None
        return
    symbolic = any(not isinstance(dim, int) for _, _, shape in inputs for dim in shape)
    sizes = _SYMBOLIC_SIZES if symbolic else (1,)
    for size, value in itertools.product(sizes, (0, 1)):
        dims = {name: _dims(shape, size) for name, _, shape in inputs}
        if sum(int(np.prod(shape, dtype=np.float64)) for shape in dims.values()) > _LARGEST_FEED:
            continue
        yield {name: _neutral(dtype, dims[name], value) for name, dtype, _ in inputs if dtype is not None}


def _dims(shape: Sequence[int | str | None], size: int) -> tuple[int, ...]:
    # a symbolic first dimension is a batch more often than not
    return tuple(dim if isinstance(dim, int) else (1 if axis == 0 else size) for axis, dim in enumerate(shape))


def _numpy_type(name: str) -> np.dtype[Any] | None:
    if not name.startswith("tensor("):
        return None
    import ml_dtypes  # noqa: F401  (registers bfloat16 and float8 with numpy)

    inner = name[len("tensor(") : -1]
    with contextlib.suppress(TypeError):
        return np.dtype(_NUMPY_TYPES.get(inner, inner))
    return None


def _neutral(dtype: np.dtype[Any], shape: tuple[int, ...], value: int) -> np.ndarray:
    if dtype.kind == "O":
        return np.full(shape, str(value), dtype=object)
    return np.full(shape, value, dtype=dtype)
