"""From what the caller gives (a path or bytes, arrays or calls) to files that workers read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import DataError, FileSystemError, UsageError
from runtime_bench import inputs
from runtime_bench.client import ERRORS, write_calls
from runtime_bench.inputs import Call, Input
from runtime_bench.protocol import WorkerFault
from runtime_bench.target import Target

ModelLike = str | Path | bytes | Any
"""A path, serialized bytes, or a ModelProto."""

Feeding = Mapping[str, np.ndarray] | Sequence[Mapping[str, np.ndarray]] | None
"""Arrays by input name (rank of the input: samples along axis 0; rank + 1: one entry a call), or ready calls, or
nothing: then inputs are made up (see inputs.synthetic)."""


class Files:
    """Model and input files of one measurement, in a folder that the caller removes."""

    def __init__(self, target: Target, feeds: Feeding, folder: Path) -> None:
        self.target, self.feeds, self.folder = target, feeds, folder
        self._inputs: dict[tuple[Input, ...], Path] = {}

    def model(self, model: ModelLike) -> Path:
        """Path of a model; bytes are written once. UsageError when a path is no file."""
        if hasattr(model, "SerializeToString"):
            model = model.SerializeToString()
        if isinstance(model, (bytes, bytearray, memoryview)):
            data = bytes(model)
            path = self.folder / f"{hashlib.sha256(data).hexdigest()[:20]}.onnx"
            if not path.exists():
                _write(path, data)
            return path
        path = Path(model)
        if not path.is_file():
            raise UsageError(f"no model file at {path}")
        return path

    def inputs(self, described: Sequence[Mapping[str, Any]]) -> Path | None:
        """File of calls for a model with these inputs (as its worker describes them); None when they are made up."""
        if self.feeds is None:
            return None
        try:
            wanted = tuple(inputs.parse(described))
            if wanted not in self._inputs:
                path = self.folder / f"inputs{len(self._inputs)}.npz"
                self._inputs[wanted] = write_calls(self._calls(wanted), path)
        except WorkerFault as fault:
            raise ERRORS[fault.kind](str(fault)) from fault
        except OSError as error:
            raise FileSystemError(f"cannot write inputs to {self.folder}: {error.strerror}") from error
        return self._inputs[wanted]

    def _calls(self, wanted: Sequence[Input]) -> list[Call]:
        if isinstance(self.feeds, Mapping):
            return inputs.calls_for(wanted, self.feeds, self.target.batch, self.target.shape_map)
        calls = [{i.name: _cast(call, i) for i in wanted} for call in (self.feeds or ())[: inputs.MAX_CALLS]]
        if not calls:
            raise DataError("no inputs to measure with: the list of calls is empty")
        return calls


def _cast(call: Mapping[str, np.ndarray], wanted: Input) -> np.ndarray:
    if wanted.name not in call:
        raise DataError(f"no data for input {wanted.name!r}; the data has {', '.join(sorted(call)) or 'none'}")
    dtype = object if wanted.dtype == "str" else wanted.dtype
    return np.asarray(call[wanted.name], dtype=dtype, order="C")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise FileSystemError(f"cannot write {path}: {error.strerror}") from error
