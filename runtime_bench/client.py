"""The compiler's side of a worker: start it, ask, and never hang or leave it behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onnxprune.errors import (
    DataError,
    FileSystemError,
    LimitError,
    ModelError,
    OnnxpruneError,
    ProviderError,
    UsageError,
)
from runtime_bench import scratch
from runtime_bench.inputs import Call
from runtime_bench.protocol import HOME_PREFIX, MAX_LINE, ProtocolError, decode, encode
from runtime_bench.target import Target, require

ERRORS: Mapping[str, type[OnnxpruneError]] = {
    "data": DataError,
    "limit": LimitError,
    "model": ModelError,
    "protocol": ProviderError,
    "provider": ProviderError,
    "shape": UsageError,
}
"""Which error a fault of that kind becomes."""

START_SECONDS = 60.0
STEP_SECONDS = 120.0
PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class Turn:
    """Seconds of the kept runs of one block, the number of runs left out as preempted, and the core (None: any)."""

    values: list[float]
    preempted: int
    core: int | None


class Worker:
    """One worker process. A context manager; a worker that was killed answers every request with ProviderError.

    timeout: seconds that one request may take before the worker is killed and LimitError raised.
    command: what to start instead of our worker, for another host or for tests.
    max_memory: bytes of address space of the process (not with providers that map device memory).
    """

    def __init__(
        self,
        target: Target,
        *,
        timeout: float = STEP_SECONDS,
        command: Sequence[str] | None = None,
        max_memory: int | None = None,
        greet: bool = True,
    ) -> None:
        self.target = target
        self.timeout = timeout
        self._number = 0
        self._buffer = bytearray()
        self._model = ""
        self._hello: dict[str, Any] | None = None
        self._max_memory = max_memory
        self._home = scratch.folder(HOME_PREFIX)
        self._stderr = Path(self._home.name, "stderr")
        self._process = self._start(command)
        self._finalizer = weakref.finalize(self, _end, self._process, self._home)
        if greet:
            with self._ending_on_error():
                _ = self.hello

    def _start(self, command: Sequence[str] | None) -> subprocess.Popen[bytes]:
        folder = Path(self._home.name)
        try:
            (folder / "runtime_bench").symlink_to(Path(__file__).resolve().parent, target_is_directory=True)
            with self._stderr.open("wb") as stderr:
                return subprocess.Popen(
                    list(command or (self.target.interpreter, "-m", "runtime_bench.worker")),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=folder,
                    env=_environment(folder, self.target.interpreter),
                    start_new_session=True,
                )
        except OSError as error:
            self._home.cleanup()
            if isinstance(error, (FileNotFoundError, PermissionError)) and not Path(self.target.interpreter).is_file():
                raise UsageError(f"no Python interpreter at {self.target.interpreter}") from error
            raise FileSystemError(f"cannot start a benchmark worker: {error}") from error

    @property
    def hello(self) -> dict[str, Any]:
        """The worker's greeting: versions and providers. Raises ProviderError when the target's EP is not among
        them."""
        if self._hello is None:
            hello = self.ask("hello", START_SECONDS, max_memory=self._max_memory)
            if not isinstance(hello.get("providers"), list):
                raise self._garbage("a greeting without providers")
            require(self.target, hello["providers"])
            self._hello = hello
        return self._hello

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _ending_on_error(self) -> Any:
        try:
            yield
        except BaseException:
            self.kill()
            raise

    def load(self, model: str | Path) -> dict[str, Any]:
        """Create the session. Returns inputs, outputs, providers and placement."""
        self._model = str(Path(model).absolute())
        return self.ask("load", model=self._model, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {**self.target.to_json(), "providers": list(self.target.providers)}

    def feed(self, npz: Path | None, seed: int = 0) -> dict[str, Any]:
        """Hand over inputs (a file of `write_calls`), or let the worker make them up; the model is run once on them."""
        return self.ask("feed", npz=str(npz) if npz else None, seed=seed, **self._settings())

    def warm_up(self, **rule: float) -> dict[str, Any]:
        """Apply the warm-up rule. Returns runs, settled, p50_ns."""
        return self.ask("warmup", rule=rule)

    def run(self, min_ns: int, min_runs: int = 3, *, drop: int = 1, first: int = 0, core: int | None = None) -> Turn:
        """One block of runs, on a core if one is given (see affinity)."""
        reply = self.ask("run", min_ns=int(min_ns), min_runs=min_runs, drop=drop, first=first, core=core)
        values = reply.get("ns")
        if not isinstance(values, list) or not values or not all(isinstance(v, int) and v > 0 for v in values):
            raise self._garbage("no times")
        return Turn([v * 1e-9 for v in values], int(reply.get("preempted", 0)), reply.get("core"))

    def probe(self, model: Path, min_ns: int) -> float:
        """Seconds of a tiny model, loaded and unloaded within this request."""
        self._model = str(model)
        limit = min(self.timeout, PROBE_SECONDS)
        settings = {**self._settings(), "shapes": {}}  # the target's are meant for the inputs of its own model
        value = self.ask("probe", limit, model=str(model), min_ns=min_ns, **settings).get("ns")
        if not isinstance(value, int) or value <= 0:
            raise self._garbage("no time")
        return value * 1e-9

    def optimized(self, model: str | Path, path: Path) -> bool:
        """Write the model as the runtime optimised it. False where the provider cannot."""
        return bool(
            self.ask("optimized", model=str(Path(model).absolute()), path=str(path), **self._settings())["written"]
        )

    def ask(self, cmd: str, timeout: float | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its reply. The worker is dead after ProviderError from a crash or garbage, and
        after LimitError from time; it lives on after ModelError, DataError and UsageError.
        """
        self._number += 1
        with self._ending_on_interrupt():
            self._send(encode({"id": self._number, "cmd": cmd, **fields}))
            line = self._line(timeout or self.timeout, cmd)
        try:
            reply = decode(line)
        except ProtocolError as error:
            raise self._garbage(error) from error
        if reply.get("id") != self._number or not isinstance(reply.get("ok"), bool):
            raise self._garbage("a reply to another request")
        if not reply["ok"]:
            raise ERRORS.get(str(reply.get("kind")), ProviderError)(self._about(str(reply.get("message"))))
        return reply

    def _garbage(self, what: object) -> ProviderError:
        self.kill()
        return ProviderError(f"the benchmark worker on {self.target.alias} sent garbage: {what}")

    @contextlib.contextmanager
    def _ending_on_interrupt(self) -> Any:
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            self.kill()
            raise

    def _about(self, message: str) -> str:
        name = Path(self._model).name
        return f"{name}: {message}" if name and name not in message else message

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._died() from error

    def _line(self, limit: float, cmd: str) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit
        source = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                raise LimitError(self._about(f"no answer to {cmd!r} on {self.target.alias} within {limit:g} s"))
            if not select.select([source], [], [], min(left, 1.0))[0]:
                continue
            chunk = os.read(source, 1 << 16)
            if not chunk:
                raise self._died()
            self._buffer += chunk
            if len(self._buffer) > MAX_LINE:
                raise self._garbage("a line without end")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _died(self) -> OnnxpruneError:
        self._close_pipes()
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()
            return ProviderError(f"the benchmark worker on {self.target.alias} closed its output; killed")
        how = _signal_name(-code) if code < 0 else f"exit status {code}"
        cause = self.last_words()
        message = f"the runtime on {self.target.alias} crashed ({how})" + (f": {cause}" if cause else "")
        if code == -signal.SIGKILL:
            return LimitError(self._about(f"{message}; it was killed from outside, most likely out of memory"))
        return ProviderError(self._about(message))

    def last_words(self) -> str:
        """Last line that the worker wrote to stderr, printable characters only, at most 200."""
        try:
            with self._stderr.open("rb") as stream:
                stream.seek(max(0, self._stderr.stat().st_size - 4096))
                lines = stream.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        words = [line.strip() for line in lines if line.strip()]
        return "".join(c if c.isprintable() else "?" for c in words[-1])[:200] if words else ""

    @property
    def alive(self) -> bool:
        """Whether the process can still be asked."""
        return self._finalizer.alive and self._process.poll() is None

    def close(self) -> None:
        """Ask the worker to leave, wait a moment, then kill it."""
        if self.alive:
            with contextlib.suppress(OnnxpruneError):
                self._send(encode({"id": 0, "cmd": "quit"}))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        self.kill()

    def kill(self) -> None:
        """End the process now and remove its folder. Any number of times."""
        self._finalizer()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _end(process: subprocess.Popen[bytes], home: tempfile.TemporaryDirectory[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    home.cleanup()


def _environment(folder: Path, interpreter: str) -> dict[str, str]:
    """This environment with our package first on the path, and nothing that changes sessions behind our back.

    Another interpreter must not see this one's PYTHONPATH: it would measure this one's onnxruntime.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("ORT_LOAD_CONFIG_FROM_MODEL", "PYTHONSTARTUP")}
    inherited = env.get("PYTHONPATH", "").split(os.pathsep) if interpreter == sys.executable else []
    path = os.pathsep.join([str(folder), *(str(Path(p).absolute()) for p in inherited if p)])
    env.update(PYTHONPATH=path, PYTHONUNBUFFERED="1", PYTHONSAFEPATH="1", PYTHONDONTWRITEBYTECODE="1")
    return env


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def write_calls(calls: Sequence[Call], path: Path) -> Path:
    """Store calls for `Worker.feed`: members "number/name", text as fixed-width Unicode so that nothing is pickled."""
    arrays = {
        f"{number}/{name}": array.astype(str) if array.dtype.kind == "O" else array
        for number, call in enumerate(calls)
        for name, array in call.items()
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stubs take every keyword for allow_pickle
    return path
