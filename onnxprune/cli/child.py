"""The child that does the work: limits itself, runs one task, and tells its parent how it goes."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from onnxprune.cli import signals
from onnxprune.errors import LimitError, OnnxpruneError


class PipeProgress:
    """Progress that writes every event as one JSON line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def send(self, event: str, **fields: Any) -> None:
        """Writes one event; `fields` must be JSON."""
        self._stream.write(json.dumps({"event": event, **fields}).encode() + b"\n")
        self._stream.flush()

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        self.send("stage", name=name, detail=detail, remaining=remaining)

    def decide(self, text: str) -> None:
        self.send("decide", text=text)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        self.send("table", rows=[list(row) for row in rows])

    def close(self, *, failed: bool = False) -> None: ...


def main() -> None:
    """Reads one request from stdin, runs its task and sends the result or the error."""
    pipe = PipeProgress(os.fdopen(int(sys.argv[2]), "wb"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals.install(debug=True)
    sys.excepthook = _hook(pipe)
    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, args=(sys.stdin,), daemon=True).start()
    _limit(message["memory"])
    pipe.send("result", value=_run(message["task"], message["request"], pipe))


def _run(task: str, request: Mapping[str, Any], pipe: PipeProgress) -> Any:
    from onnxprune.cli import tasks

    return tasks.TASKS[task](request, pipe)


def _limit(memory: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A file over the limit or a full disk shall be an OSError that can be reported, not a signal that kills.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if memory is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


def _leave_with_parent(lifeline: TextIO) -> None:
    """Ends this process group once stdin ends: the parent died without a chance to say so."""
    lifeline.read()
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _hook(pipe: PipeProgress) -> Any:
    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        told = _known(error)
        text = "".join(traceback.format_exception(kind, error, trace))
        pipe.send("error", **{"class": type(told).__name__, "message": str(told), "traceback": text})

    return tell


def _known(error: BaseException) -> BaseException:
    """Returns the error in terms of `onnxprune.errors` where it can be told, else one that exits with 1."""
    from onnxprune.errors import FileSystemError

    if isinstance(error, OnnxpruneError):
        return error
    if isinstance(error, MemoryError):
        return LimitError("out of memory; raise --max-memory or give a smaller model or less data")
    if isinstance(error, OSError) and error.filename is not None:
        return FileSystemError(f"{error.filename}: {error.strerror}")
    if isinstance(error, OSError) and error.errno is not None:
        return FileSystemError(f"{error.strerror}")
    return OnnxpruneError(f"internal error ({type(error).__name__}: {error}); run with --debug and report it")
