"""Outputs appear whole or not at all: the work writes into hidden folders beside them, and a good end renames."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from onnxprune.errors import FileSystemError, UsageError


class Staging:
    """Hands out temporary paths for outputs, on the file systems where they will end, and moves them there.

    Whoever uses it calls `discard` at the end, however that comes: what was not committed is removed.
    """

    def __init__(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._folders: dict[Path, Path] = {}
        self._staged: dict[Path, Path] = {}

    def discard(self) -> None:
        """Removes every temporary folder."""
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, output: Path) -> Path:
        """Returns the temporary path, of the same file name, under which `output` is to be written."""
        home = output.parent.resolve()
        if home not in self._folders:
            try:
                self._folders[home] = Path(tempfile.mkdtemp(prefix=".onnxprune-", dir=home))
            except OSError as error:
                raise FileSystemError(f"the folder {output.parent} cannot be written to: {error.strerror}") from error
        staged = self._folders[home] / output.name
        self._staged[staged] = home / output.name
        return staged

    def scratch(self) -> Path:
        """Returns a folder for temporary files that ends with the run."""
        scratch = Path(tempfile.mkdtemp(prefix="onnxprune-"))
        self._folders[scratch] = scratch
        return scratch

    def commit(self, *outputs: Path | None) -> None:
        """Moves what was written for these outputs into place, in their order; the last one makes the run count.

        Side files that lie beside a staged output (external data) move before it.
        """
        for output in outputs:
            if output is None:
                continue
            home = output.parent.resolve()
            staged = self._folders[home] / output.name
            if not staged.exists():
                continue
            for side in sorted(staged.parent.glob(f"{output.name}.*")):
                if side not in self._staged:
                    side.replace(home / side.name)
            self._move(staged, home / output.name)

    def _move(self, staged: Path, output: Path) -> None:
        staged.chmod(0o666 & ~_umask())
        try:
            if self._overwrite:
                staged.replace(output)
            else:
                _move_to_free_name(staged, output)
            _sync_folder(output.parent)
        except FileExistsError:
            raise UsageError(f"{output} was created meanwhile; choose another path or add --overwrite") from None
        except OSError as error:
            raise FileSystemError(f"{output} could not be written: {error.strerror}") from error


def _move_to_free_name(staged: Path, output: Path) -> None:
    """Renames without ever replacing a file that appeared after the check; some file systems have no hard links."""
    try:
        os.link(staged, output)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        staged.replace(output)
    else:
        staged.unlink()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
