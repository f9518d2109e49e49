"""Reading and writing model files."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxprune.errors import FileSystemError, ModelError, UsageError
from onnxprune.ir import exporter, importer
from onnxprune.ir.model import Model


def load(path: str | os.PathLike[str]) -> Model:
    """Reads a model. UsageError when there is no such file, ModelError when it is not a usable ONNX model."""
    source = Path(path)
    if not source.is_file():
        raise UsageError(f"no such model file: {source}")
    try:
        proto = onnx.load(source)
    except DecodeError:
        raise ModelError(f"{source} is not an ONNX model") from None
    except OSError as error:
        raise FileSystemError(f"cannot read {source}: {error.strerror or error}") from error
    return importer.build(proto, importer.store, source)


def save(model: Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes the model to a temporary file beside `path`, syncs it and renames it."""
    target = Path(path)
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; choose another output or pass --overwrite")
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    partial.write_bytes(exporter.to_proto(model).SerializeToString())
    partial.replace(target)
