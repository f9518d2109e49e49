"""Runs the work in a child process, so that native code which crashes, hangs or eats memory is one line of error.

The child speaks JSON lines over a pipe of its own: what it does (`stage`, `decide`, `table`) and how it ended
(`result`, `error`). Its stdin stays open as a lifeline: when this process dies, the child sees its end and leaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from onnxprune import errors, sandbox
from onnxprune.errors import LimitError, OnnxpruneError
from onnxprune.progress import Progress, one_line, seconds_text
from onnxprune.units import bytes_text

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from onnxprune.cli.child import main; main()"
_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.25
_STDERR_LINES = 400


@dataclass(frozen=True)
class Limits:
    """Bytes of address space and seconds of wall time for the work; None is no limit."""

    memory: int | None = None
    seconds: float | None = None


def default_memory(*read: Path | None) -> int:
    """Returns the address space in bytes that the work gets unless told: ample for its inputs, less than the machine's.

    A hostile model of a few kilobytes can ask for tens of gigabytes; a real one needs a few times its own size.
    """
    sizes = sum(_size(path) for path in read if path is not None)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(installed, 4 * 2**30), 10 * 2**30 + 6 * sizes)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(inner.stat().st_size for inner in path.iterdir() if inner.is_file())
    return path.stat().st_size


def run(
    task: str, request: Mapping[str, Any], *, progress: Progress, limits: Limits, scratch: Path, debug: bool = False
) -> dict[str, Any]:
    """Runs the task `module:function` on the request in a child process and returns its result.

    `scratch` takes its temporary files. Raises what the task raised where that is an OnnxpruneError, LimitError where a
    limit was reached, and ModelError where foreign code failed or died on the model.
    """
    child = _Child(task, request, limits, scratch)
    try:
        result = child.follow(progress)
    finally:
        child.stop()
        if debug:
            sys.stderr.write("".join(one_line(line) + "\n" for line in child.stderr))
    return result


class _Child:
    def __init__(self, task: str, request: Mapping[str, Any], limits: Limits, scratch: Path) -> None:
        self._limits = limits
        self._deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
        self._peak = 0
        self.stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        events, write_end = os.pipe()
        self._events: BinaryIO = os.fdopen(events, "rb")
        environment = {**sandbox.clean_environment(), "TMPDIR": str(scratch)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), str(write_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=(write_end,),
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        self._drain = threading.Thread(target=self._keep_stderr, daemon=True)
        self._drain.start()
        self._send({"task": task, "memory": limits.memory, "request": dict(request)})

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # a child that died before it read anything is noticed where its events are read
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in iter(lambda: self._process.stderr.readline(4096), b""):  # type: ignore[union-attr]
            self.stderr.append(line.decode(errors="replace"))

    def follow(self, progress: Progress) -> dict[str, Any]:
        """Tells the child's events to `progress` until it ends; returns its result or raises its error."""
        selector = selectors.DefaultSelector()
        selector.register(self._events, selectors.EVENT_READ)
        pending = b""
        with selector:
            while True:
                self._check_limits()
                if not selector.select(_POLL_SECONDS):
                    continue
                chunk = os.read(self._events.fileno(), 1 << 16)
                if not chunk:
                    self._raise_death()
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    result = _tell(json.loads(line), progress)
                    if result is not None:
                        return result

    def _check_limits(self) -> None:
        self._peak = max(self._peak, _virtual_peak(self._process.pid))
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise LimitError(f"not finished within --timeout {seconds_text(self._limits.seconds or 0)}; raise it")

    def _raise_death(self) -> NoReturn:
        """Raises the error for a child that ended without a word."""
        code = self._process.wait()
        self._drain.join(_GRACE_SECONDS)
        limit = self._limits.memory
        if limit is not None and self._peak > limit // 2:
            raise LimitError(f"out of memory ({bytes_text(limit)} of address space allowed); raise --max-memory")
        said = "".join(self.stderr)
        if code < 0:
            sandbox.raise_death(-code, said, "native code")
        raise RuntimeError(f"the working process ended with exit code {code}: {said.strip()[-300:]}")

    def stop(self) -> None:
        """Ends the child and whatever it started: asked first, then killed."""
        if self._process.poll() is None:
            _signal_group(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain.join(_GRACE_SECONDS)
        for stream in (self._process.stdin, self._process.stderr, self._events):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _virtual_peak(process: int) -> int:
    """Returns the peak address space of a process in bytes, 0 where the system does not say."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("VmPeak:"):
            return int(line.split()[1]) * 1024
    return 0


def _tell(event: dict[str, Any], progress: Progress) -> dict[str, Any] | None:
    kind = event["event"]
    if kind == "stage":
        progress.stage(event["name"], event["detail"], remaining=event["remaining"])
    elif kind == "decide":
        progress.decide(event["text"])
    elif kind == "table":
        progress.table(event["rows"])
    elif kind == "error":
        error: OnnxpruneError = getattr(errors, event["class"])(event["message"])
        error.add_note(event["trace"])
        raise error
    elif kind == "foreign":
        try:
            sandbox.raise_foreign(*event["exception"])
        except LimitError as limit:
            raise LimitError("out of memory; raise --max-memory, or give a smaller model or less data") from limit
    elif kind == "result":
        result: dict[str, Any] = event["value"]
        return result
    return None
