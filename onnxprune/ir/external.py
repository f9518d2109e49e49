"""External data of untrusted models: regular files inside the model's folder, memory-mapped, checked against the dims.

A location may not be absolute, climb out of the folder, pass through a symbolic link, name a file with several hard
links, a device or pipe, or the model file itself: each of these has been used to read files that the model's author
could not see.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import FileSystemError, ModelError
from onnxprune.ir import dtypes
from onnxprune.ir.header import copy_fields
from onnxprune.ir.stored import StoredTensor, element_count, store


class SideFiles:
    """The files beside a model that hold its tensors, each opened and mapped once."""

    def __init__(self, model_path: Path) -> None:
        self.model_path = model_path
        self.maps: dict[str, np.ndarray] = {}

    @property
    def paths(self) -> frozenset[Path]:
        """The side files that were read."""
        return frozenset(self.model_path.parent / location for location in self.maps)

    def store(self, proto: TensorProto) -> StoredTensor:
        """Like `stored.store`, with external data as a view of the mapped file. ModelError for a bad reference."""
        if proto.data_location != TensorProto.EXTERNAL:
            return store(proto)
        header = TensorProto()
        copy_fields(proto, header, skip=("external_data", "data_location", "raw_data"))
        return StoredTensor(header, self._view(proto))

    def embed(self, proto: TensorProto) -> None:
        """Moves the external data of a tensor into the tensor itself (for tensors inside attributes)."""
        if proto.data_location == TensorProto.EXTERNAL:
            proto.raw_data = self._view(proto).tobytes()
            proto.ClearField("external_data")
            proto.ClearField("data_location")

    def _view(self, proto: TensorProto) -> np.ndarray:
        entries = {entry.key: entry.value for entry in proto.external_data}
        data = self._map(proto.name, entries.get("location", ""))
        needed = dtypes.packed_size(proto.data_type, element_count(proto))
        offset, length = (_number(proto.name, entries, key) for key in ("offset", "length"))
        start = offset or 0
        size = length if length is not None else needed
        if needed is None or size != needed:
            raise ModelError(
                f"initializer {proto.name!r} cannot have {size} bytes of external data (it needs {needed})"
            )
        if start + size > len(data):
            raise ModelError(
                f"the external data of {proto.name!r} ends at byte {start + size} of a file of {len(data)} bytes: "
                "the file is truncated or belongs to another model"
            )
        return data[start : start + size]

    def _map(self, name: str, location: str) -> np.ndarray:
        if location not in self.maps:
            self.maps[location] = _open(self.model_path, name, location)
        return self.maps[location]


def _number(name: str, entries: dict[str, str], key: str) -> int | None:
    if key not in entries:
        return None
    text = entries[key]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(f"the external data of {name!r} has the invalid {key} {text[:40]!r}")
    return int(text)


def _open(model_path: Path, name: str, location: str) -> np.ndarray:
    relative = PurePosixPath(location)
    windows = PureWindowsPath(location)
    if not location or "\0" in location or relative.is_absolute() or windows.drive or windows.root:
        raise ModelError(f"the external data of {name!r} must lie beside the model, not at {location[:80]!r}")
    if ".." in relative.parts or ".." in windows.parts:
        raise ModelError(f"the external data of {name!r} leaves the model's folder: {location[:80]!r}")
    path = model_path.parent
    try:
        for part in relative.parts:
            path = path / part
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise ModelError(
                    f"the external data of {name!r} is behind the symbolic link {path.name!r}; "
                    "copy the model's folder with cp -rL and use the copy"
                )
        return _map_file(model_path, name, path)
    except FileNotFoundError:
        raise ModelError(f"the external data file {location[:80]!r} is missing beside the model") from None
    except OSError as error:
        raise FileSystemError(f"cannot read external data {path}: {error.strerror or error}") from error


def _map_file(model_path: Path, name: str, path: Path) -> np.ndarray:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"the external data of {name!r} is in {path.name!r}, which is not a regular file")
        if os.path.samestat(status, model_path.stat()):
            raise ModelError(f"the external data of {name!r} is in the model file itself")
        if status.st_nlink > 1:
            raise ModelError(
                f"the external data file {path.name!r} has several hard links, so it may be another user's file; "
                "copy the model's folder and use the copy"
            )
        if status.st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
    finally:
        os.close(descriptor)


def embed_in_attributes(proto: onnx.ModelProto, files: SideFiles) -> None:
    """Loads the external data of every tensor that is inside a node attribute, subgraphs and functions included."""
    for node in proto.graph.node:
        _embed_node(node, files)
    for function in proto.functions:
        for node in function.node:
            _embed_node(node, files)


def _embed_node(node: onnx.NodeProto, files: SideFiles) -> None:
    for attribute in node.attribute:
        for tensor in (attribute.t, *attribute.tensors):
            files.embed(tensor)
        for graph in (attribute.g, *attribute.graphs):
            for tensor in graph.initializer:
                files.embed(tensor)
            for inner in graph.node:
                _embed_node(inner, files)
