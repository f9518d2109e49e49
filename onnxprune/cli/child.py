"""The child that does the work: limits itself, runs one task, and tells its parent how it goes."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from onnxprune import sandbox
from onnxprune.cli import signals
from onnxprune.errors import OnnxpruneError

_COLLECT_EVERY = 50_000


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
    signals.install(debug=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _hook(pipe)
    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, args=(sys.stdin,), daemon=True).start()
    # A file over a limit shall be an OSError that can be reported, not a signal that kills.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sandbox.limit(message["memory"], None)
    # A graph is hundreds of thousands of objects that live on: looking through them every 700 finds nothing.
    gc.set_threshold(_COLLECT_EVERY, 10, 10)
    pipe.send("result", value=_run(message["task"], message["request"], pipe))


def _run(task: str, request: Mapping[str, Any], pipe: PipeProgress) -> Any:
    module, _, function = task.partition(":")
    return getattr(importlib.import_module(module), function)(request, pipe)


def _leave_with_parent(lifeline: TextIO) -> None:
    """Ends this process group once stdin ends: the parent died without a chance to say so."""
    lifeline.read()
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _hook(pipe: PipeProgress) -> Any:
    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        if isinstance(error, OnnxpruneError):
            pipe.send("error", trace=text, message=str(error), **{"class": kind.__name__})
            return
        number = error.errno if isinstance(error, OSError) else None
        pipe.send("foreign", exception=[kind.__module__, kind.__name__, str(error), number, text])

    return tell
