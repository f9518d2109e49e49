"""Paths are checked before any work: a run must not find out after minutes that it cannot write its result."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from onnxprune.errors import FileSystemError, UsageError


def _status(path: Path, what: str) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise UsageError(f"{what} {str(path)!r} is not a path") from None
    except OSError as error:
        raise FileSystemError(f"{what} {path}: {error.strerror}") from error


def check_input(path: Path, what: str, *, folder: bool = False) -> None:
    """Raises UsageError unless `path` is a readable regular file, or a directory where a `folder` will do."""
    status = _status(path, what)
    if status is None:
        raise UsageError(f"{what} {path} does not exist; check the path")
    if stat.S_ISDIR(status.st_mode) and not folder:
        raise UsageError(f"{what} {path} is a directory; name a file")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{what} {path} is not a regular file")
    if not os.access(path, os.R_OK):
        raise FileSystemError(f"{what} {path} cannot be read: permission denied")


def _same(first: Path, second: Path) -> bool:
    """Whether both names lead to one file, also through symbolic or hard links, or would once it is written."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return first.samefile(second)
    except OSError:
        return False


def check_output(path: Path, what: str, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raises UsageError where `path` is one of the `inputs`, exists without `overwrite`, or is no place for a file.

    Raises FileSystemError where its directory cannot be written to.
    """
    for used in inputs:
        if _same(path, used):
            raise UsageError(f"{what} {path} is the same file as {used}, which is read; choose another path")
    if path.is_dir():
        raise UsageError(f"{what} {path} is a directory; name a file in it")
    if os.path.lexists(path):
        if path.exists() and not path.is_file():
            raise UsageError(f"{what} {path} is not a regular file; choose another path")
        if not overwrite:
            raise UsageError(f"{what} {path} exists; choose another path or add --overwrite")
    parent = path.parent
    if _status(parent, f"the folder of {what}") is None or not parent.is_dir():
        raise UsageError(f"{what} {path}: the folder {parent} does not exist; create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise FileSystemError(f"{what} {path}: the folder {parent} cannot be written to")


def check_outputs(outputs: Mapping[str, Path | None], *, inputs: Iterable[Path | None], overwrite: bool) -> None:
    """Checks every output (by what it is), also that no two of them are one file. Absent ones are None."""
    reads = [path for path in inputs if path is not None]
    seen: list[tuple[str, Path]] = []
    for what, path in outputs.items():
        if path is None:
            continue
        check_output(path, what, inputs=reads, overwrite=overwrite)
        for other, used in seen:
            if _same(path, used):
                raise UsageError(f"{what} and {other} are the same file {path}; choose another path for one of them")
        seen.append((what, path))


def check_extended(path: Path, what: str, *, others: Iterable[Path | None]) -> None:
    """Checks a file that is read where it exists, and added to: it can be none of the `others`."""
    for used in others:
        if used is not None and _same(path, used):
            raise UsageError(f"{what} {path} is the same file as {used}; choose another path")
    if _status(path, what) is not None:
        check_input(path, what)
    else:
        check_output(path, what, inputs=(), overwrite=True)
