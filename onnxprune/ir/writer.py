"""Writing model files: all or nothing, never over the input.

The commit point is the rename of the .onnx file. Above 2 GB the weights go to a side file whose name holds its hash, so
the old model and the old weights stay a valid pair until the commit, whatever interrupts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxprune.errors import FileSystemError, ModelError, UsageError
from onnxprune.ir import exporter
from onnxprune.ir.files import read_proto
from onnxprune.ir.header import copy_fields
from onnxprune.ir.model import Body, Model
from onnxprune.ir.stored import DATA_FIELDS, StoredTensor, release

INLINE_LIMIT = (1 << 31) - (64 << 20)
_SMALLEST_EXTERNAL = 1024
_ALIGNMENT = 4096
_HASH_DIGITS = 12


def save(model: Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes the model: temporary file, fsync, rename. Weights of more than 2 GB go to `NAME.<sha12>.data` beside it.

    UsageError when the output exists and `overwrite` is off, or when it is the input or one of its side files;
    FileSystemError when the disk is full or refuses. Nothing is left behind on failure.
    """
    target = Path(path)
    check_output(model, target, overwrite=overwrite)
    old_side_files = _own_side_files(target)
    try:
        with _temporary(target) as (stream, partial):
            side = _write_large(model, target, stream) if _weight_bytes(model) > INLINE_LIMIT else None
            if side is None:
                stream.write(exporter.to_proto(model).SerializeToString())
            _sync(stream)
            partial.replace(target)
            _sync_folder(target.parent)
    except OSError as error:
        raise FileSystemError(f"cannot write {target}: {error.strerror or error}") from error
    for stale in old_side_files - ({side} if side else set()) - model.side_files:
        with contextlib.suppress(OSError):
            stale.unlink()


def check_output(model: Model, target: Path, *, overwrite: bool) -> None:
    """Raises UsageError when `save` would refuse the target; cheap, so it can be asked before the work starts."""
    try:
        if not target.parent.is_dir():
            raise UsageError(f"the folder {target.parent} does not exist")
        if target.is_dir():
            raise UsageError(f"{target} is a folder; name a file")
        inputs = [source for source in (model.path, *model.side_files) if source is not None]
        if any(_same(source, target) for source in inputs):
            raise UsageError(f"{target} is the input model or its data; the input is never overwritten")
        if os.path.lexists(target):
            if not overwrite:
                raise UsageError(f"{target} exists; choose another output or pass --overwrite")
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                raise UsageError(f"{target} is not a regular file")
    except (ValueError, OSError) as error:
        raise UsageError(f"{str(target)!r} cannot be an output file: {error}") from error


def _same(source: Path, target: Path) -> bool:
    if not source.exists():
        return False
    if source.resolve() == target.resolve():
        return True
    return target.exists() and source.samefile(target)


def _weight_bytes(model: Model) -> int:
    """Bytes of all initializers, those of opened subgraphs too, which are written inside the message in any case."""
    payloads = (tensor._values for tensor in model.all_tensors() if isinstance(tensor, gs.Constant))
    inner = (value for node in model.graph.nodes for value in node.attrs.values() if isinstance(value, Body))
    return int(sum(payload.nbytes for payload in payloads)) + sum(map(_weight_bytes, inner))


@contextlib.contextmanager
def _temporary(target: Path, suffix: str = "tmp") -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside the target; removed again unless it was renamed."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.{suffix}")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    # mode 0644 less the umask: other users of the machine can serve the model
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream, partial
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_large(model: Model, target: Path, stream: BinaryIO) -> Path:
    """Streams the weights to the side file, one at a time, then writes the graph that refers to them."""
    with _temporary(target, "data.tmp") as (data, partial):
        digest = hashlib.sha256()

        def emit(constant: gs.Constant) -> TensorProto:
            header, raw = _split(constant)
            if len(raw) < _SMALLEST_EXTERNAL:
                return exporter.tensor_proto(constant)
            padding = bytes(-data.tell() % _ALIGNMENT)
            for piece in (padding, raw):
                data.write(piece)
                digest.update(piece)
            release(constant._values)
            header.data_location = TensorProto.EXTERNAL
            for key, value in (("location", ""), ("offset", data.tell() - len(raw)), ("length", len(raw))):
                header.external_data.add(key=key, value=str(value))
            return header

        proto = exporter.assemble(model, emit)
        _sync(data)
        side = target.with_name(f"{target.name}.{digest.hexdigest()[:_HASH_DIGITS]}.data")
        for tensor in proto.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor.external_data[0].value = side.name
        stream.write(_serialised(proto, target))
        partial.replace(side)
        _sync_folder(target.parent)
        return side


def _serialised(proto: onnx.ModelProto, target: Path) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except ValueError as error:
        raise ModelError(f"{target.name} has more than 2 GB outside its initializers: too much for ONNX") from error


def _split(constant: gs.Constant) -> tuple[TensorProto, memoryview]:
    """The tensor's header without data, and its bytes. Strings have no bytes: they stay inside."""
    payload = constant._values
    stored = isinstance(payload, StoredTensor) and constant._export_dtype is None
    header = TensorProto()
    if stored:
        copy_fields(payload.tensor, header, skip=DATA_FIELDS)
        header.name = constant.name
        if payload.raw is not None:
            return header, np.frombuffer(payload.raw, np.uint8).data if len(payload.raw) else memoryview(b"")
    array = exporter.array_of(constant)
    if array.dtype.kind == "O":
        return header, memoryview(b"")
    proto = onnx.numpy_helper.from_array(array, constant.name)
    if not stored:
        copy_fields(proto, header, skip=("raw_data",))
    return header, memoryview(proto.raw_data)


def _own_side_files(target: Path) -> set[Path]:
    """Side files that an earlier `save` wrote for this target; they are superseded by the next one."""
    pattern = re.compile(re.escape(target.name) + rf"\.[0-9a-f]{{{_HASH_DIGITS}}}\.data")
    if not target.is_file():
        return set()
    try:
        tensors = read_proto(target).graph.initializer
    except (ModelError, FileSystemError, UsageError):
        return set()
    locations = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return {target.with_name(location) for location in locations if pattern.fullmatch(location)}
