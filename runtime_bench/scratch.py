"""Temporary folders, with one line for the user when there is no room for them."""

from __future__ import annotations

import tempfile

from onnxprune.errors import FileSystemError


def folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder in the system's temporary directory. Raises FileSystemError."""
    try:
        return tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise FileSystemError(f"cannot make a temporary folder (set TMPDIR to another place): {error}") from error
