"""Runs a command and says how it ended, how long it took, and how much memory all of its processes held together."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LOOK_SECONDS = 0.02
SAMPLE_SECONDS = 0.5
GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Ran:
    """How a command ended. exit_code: negative for a signal. seconds: wall time. cpu_seconds: of the command and of the
    descendants it waited for; other work on the machine hardly changes them. peak_bytes: the most resident memory of
    the command and its descendants together, sampled twice a second, and never less than that of the largest process,
    which the system records exactly.
    """

    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str
    stderr: str
    timed_out: bool = False


def run(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float) -> Ran:
    """Runs `argv` in a process group of its own; past `timeout` seconds the group is terminated, then killed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status, usage, together, timed_out = _wait(process.pid, timeout)
        except BaseException:
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        texts = [_text(stream) for stream in (out, err)]
    largest = usage.ru_maxrss * 1024
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(process.returncode, seconds, cpu, max(largest, together), texts[0], texts[1], timed_out)


def _wait(process: int, timeout: float) -> tuple[int, resource.struct_rusage, int, bool]:
    """Returns wait status, what was used, the most bytes of all processes together, and whether time ran out."""
    begin = sampled = time.perf_counter()
    together = 0
    end, timed_out = begin + timeout, False
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return status, usage, together, timed_out
        now = time.perf_counter()
        if now > end:
            _signal(process, signal.SIGKILL if timed_out else signal.SIGTERM)
            end, timed_out = now + GRACE_SECONDS, True
        if now - sampled > SAMPLE_SECONDS:
            together, sampled = max(together, tree_bytes(process)), now
        time.sleep(LOOK_SECONDS)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and its descendants, each shared page counted in every process that maps it; 0 where
    the system has no /proc.
    """
    parents, sizes = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # ended in between
        parents[int(folder.name)] = int(fields[1])
        sizes[int(folder.name)] = int(fields[21])
    return sum(sizes[process] for process in descendants(root, parents)) * os.sysconf("SC_PAGE_SIZE")


def descendants(root: int, parents: Mapping[int, int]) -> Iterable[int]:
    """A process and all that descend from it, given the parent of each."""
    children: dict[int, list[int]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    waiting = [root] if root in parents else []
    while waiting:
        process = waiting.pop()
        yield process
        waiting.extend(children.get(process, ()))
