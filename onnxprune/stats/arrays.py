"""Reads calibration arrays from disk: an ``.npz`` file, or a directory of ``.npy`` and ``.npz`` files. Nothing is
ever unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]


def read(path: Path) -> dict[str, Array]:
    """Arrays by name. A ``.npy`` file is named by its stem; arrays of one name in several files are joined along axis
    0, in file-name order.

    Raises DataError, in one line, for a missing, foreign, truncated, empty or pickled file.
    """
    if path.is_dir():
        return _read_directory(path)
    if not path.is_file():
        raise DataError(f"calibration data not found: {path}; give an .npz file or a directory of .npy/.npz files")
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"calibration data must be an .npz file or a directory of .npy/.npz files, not {path.name}")
    return _read_file(path)


def _read_directory(path: Path) -> dict[str, Array]:
    files = sorted(entry for entry in path.iterdir() if entry.suffix in (".npy", ".npz") and entry.is_file())
    if not files:
        raise DataError(f"calibration directory {path} holds no .npy or .npz file")
    parts: dict[str, list[Array]] = {}
    for entry in files:
        for name, array in _read_file(entry).items():
            parts.setdefault(name, []).append(array)
    return {name: _join(name, arrays) for name, arrays in parts.items()}


def _join(name: str, arrays: list[Array]) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1 or not arrays[0].ndim:
        found = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays[:3])
        raise DataError(f"the files that hold {name!r} cannot be joined along axis 0: {found}")
    return np.concatenate(arrays)


def _read_file(path: Path) -> dict[str, Array]:
    try:
        if path.suffix == ".npy":
            return {path.stem: np.lib.format.open_memmap(path, mode="r")}
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return {member.removesuffix(".npy"): _member(archive, member) for member in archive.namelist()}
    except MemoryError:
        raise DataError(f"{path.name} declares an array that does not fit into memory") from None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise DataError(f"{path.name} holds pickled objects, which are never loaded; save plain arrays") from None
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path.name} is no readable .npy/.npz file: {reason}") from None


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array
