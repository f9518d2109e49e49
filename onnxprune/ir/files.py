"""Reading model files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxprune.errors import FileSystemError, ModelError, UsageError
from onnxprune.ir import importer
from onnxprune.ir.external import SideFiles, embed_in_attributes
from onnxprune.ir.model import Model

_LOOKS_LIKE = {
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull` to get the model",
    b"<!DOCTYPE": "a web page, so the download failed",
    b"<html": "a web page, so the download failed",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x80\x04": "a pickle, which is never loaded; export the model to ONNX",
    b"\x80\x02": "a pickle, which is never loaded; export the model to ONNX",
}


def load(path: str | os.PathLike[str]) -> Model:
    """Reads a model; its external data are memory-mapped, not read.

    UsageError when there is no such file, ModelError when it is not a usable ONNX model, FileSystemError when it cannot
    be read.
    """
    source = Path(path)
    proto = read_proto(source)
    files = SideFiles(source)
    embed_in_attributes(proto, files)
    model = importer.build(proto, files.store, source)
    model.side_files = files.paths
    return model


def read_proto(path: Path) -> onnx.ModelProto:
    """The ModelProto of a file, its external data left where they are. Raises as `load` does."""
    data = _read(path)
    for start, meaning in _LOOKS_LIKE.items():
        if data.startswith(start):
            raise ModelError(f"{path} is not an ONNX model but {meaning}")
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
        return proto
    except (DecodeError, RecursionError):
        raise ModelError(f"{path} is not an ONNX model, or it is truncated") from None


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode) or not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a file")
        if status.st_size == 0:
            raise ModelError(f"{path} is empty")
        if status.st_size >= 1 << 31:
            raise ModelError(f"{path} is above 2 GB, more than protobuf reads; save it with external data")
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no such model file: {path}") from None
    except NotADirectoryError:
        raise UsageError(f"no such model file: {path}") from None
    except (ValueError, OSError) as error:
        raise FileSystemError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
