"""The worker process: holds one session and answers requests on stdin with replies on stdout (see protocol).

Commands: hello, load, feed, warmup, run, probe, optimized, unload, quit. It never starts a run by itself, so it sleeps
while another worker is timed. It ends when its stdin closes, also in the middle of a run.
"""

from __future__ import annotations

import gc
import os
import platform
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime as ort

from runtime_bench import affinity, inputs, timing
from runtime_bench.protocol import HOME_PREFIX, VERSION, ProtocolError, WorkerFault, decode, encode
from runtime_bench.session import Session, faults, optimized_copy

Reply = dict[str, Any]


def _hello(worker: Worker, request: Mapping[str, Any]) -> Reply:
    memory = request.get("max_memory")
    if memory:
        _limit_memory(int(memory))
    return {
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "providers": ort.get_available_providers(),
        "pid": os.getpid(),
    }


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _load(worker: Worker, request: Mapping[str, Any]) -> Reply:
    _unload(worker, request)  # before the next one is made: one model in memory at a time
    worker.session = Session(request["model"], request)
    return worker.session.describe()


def _feed(worker: Worker, request: Mapping[str, Any]) -> Reply:
    """Calls come from `npz` (members "number/name") or are made up from the session's own inputs."""
    session = worker.loaded()
    if request.get("npz"):
        calls = _read_calls(request["npz"])
        session.feed(calls)
        return {"calls": len(calls), "synthetic": False}
    _feed_synthetic(session, request)
    return {"calls": 1, "synthetic": True}


def _read_calls(path: str) -> list[inputs.Call]:
    calls: dict[int, inputs.Call] = {}
    with np.load(path, allow_pickle=False) as stored:
        for member in stored.files:
            number, _, name = member.partition("/")
            array = stored[member]
            calls.setdefault(int(number), {})[name] = array.astype(object) if array.dtype.kind == "U" else array
    return [calls[number] for number in sorted(calls)] or [{}]


def _feed_synthetic(session: Session, request: Mapping[str, Any]) -> None:
    """Integers are 0, or 1 for a model that cannot run on zeros (a length, a divisor)."""
    wanted = inputs.parse(session.describe()["inputs"])
    refusals = []
    for integer in (0, 1):
        made = inputs.synthetic(
            wanted, request.get("batch", 1), request.get("shapes", {}), request.get("seed", 0), integer
        )
        try:
            session.feed([made])
            return
        except WorkerFault as fault:
            refusals.append(fault)
            if fault.kind != "model":
                raise
    if any(i.dtype.lstrip("u").startswith("int") for i in wanted):
        raise WorkerFault("data", f"cannot run on made-up inputs, give calibration data: {refusals[0]}")
    raise refusals[0]


def _warmup(worker: Worker, request: Mapping[str, Any]) -> Reply:
    session = worker.loaded()
    with faults(session.wanted):
        return asdict(timing.warm_up(session.run, timing.WarmUp(**request.get("rule", {}))))


def _run(worker: Worker, request: Mapping[str, Any]) -> Reply:
    session = worker.loaded()
    with faults(session.wanted), affinity.pinned(request.get("core")) as core:
        turn = timing.block(
            session.run,
            min_ns=request["min_ns"],
            min_runs=request["min_runs"],
            drop=request.get("drop", 1),
            first=request.get("first", 0),
        )
    return {"ns": turn.values, "preempted": turn.preempted, "core": core}


def _probe(worker: Worker, request: Mapping[str, Any]) -> Reply:
    """Load, feed made-up inputs, time shortly, unload: for the hundreds of tiny models of a latency table."""
    session = Session(request["model"], request)
    _feed_synthetic(session, request)
    with faults(session.wanted):
        return {"ns": timing.probe(session.run, min_ns=request["min_ns"])}


def _optimized(worker: Worker, request: Mapping[str, Any]) -> Reply:
    return {"written": optimized_copy(request["model"], request, request["path"])}


def _unload(worker: Worker, request: Mapping[str, Any]) -> Reply:
    worker.session = None
    gc.collect()
    return {}


COMMANDS: Mapping[str, Callable[[Worker, Mapping[str, Any]], Reply]] = {
    "feed": _feed,
    "hello": _hello,
    "load": _load,
    "optimized": _optimized,
    "probe": _probe,
    "run": _run,
    "unload": _unload,
    "warmup": _warmup,
}


class Worker:
    """The loop. Requests come through a thread that ends the process at the end of stdin, whatever the loop is
    doing."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.session: Session | None = None

    def loaded(self) -> Session:
        """The current session; WorkerFault when there is none."""
        if self.session is None:
            raise WorkerFault("protocol", "no model is loaded")
        return self.session

    def serve(self) -> None:
        """Answer requests until quit or the end of stdin."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            try:
                request = decode(self._requests.get())
            except ProtocolError as error:
                self._reply({"id": None, "ok": False, "kind": "protocol", "message": str(error)})
                continue
            if request.get("cmd") == "quit":
                return
            self._reply({"id": request.get("id"), **self._answer(request)})

    def _read(self) -> None:
        for line in self._stdin:
            self._requests.put(line)
        _remove_home(Path.cwd())
        os._exit(0)

    def _answer(self, request: Mapping[str, Any]) -> Reply:
        command = COMMANDS.get(str(request.get("cmd")))
        try:
            if command is None:
                raise WorkerFault("protocol", f"no command {request.get('cmd')!r} in protocol version {VERSION}")
            return {"ok": True, **command(self, request)}
        except WorkerFault as fault:
            return {"ok": False, "kind": fault.kind, "message": str(fault)}
        except MemoryError:
            return {"ok": False, "kind": "limit", "message": "out of memory"}
        except (KeyError, TypeError, ValueError, OSError) as error:
            return {"ok": False, "kind": "protocol", "message": f"{type(error).__name__}: {error}"}

    def _reply(self, message: Reply) -> None:
        self._stdout.write(encode(message))
        self._stdout.flush()


def _remove_home(folder: Path) -> None:
    """The folder this worker was started in, when its parent ended without removing it. Links are not followed."""
    if folder.name.startswith(HOME_PREFIX) and (folder / "runtime_bench").is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Take stdout for replies alone: what else is printed, by Python or by native code, goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.freeze()
    gc.disable()  # never in the middle of a run; sessions are collected as they are unloaded
    sys.stdout = sys.stderr
    Worker(sys.stdin.buffer, replies).serve()
    replies.flush()
    os._exit(0)  # no interpreter shutdown: destructors of providers may hang


if __name__ == "__main__":
    main()
