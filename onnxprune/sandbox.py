"""Runs a function or a command in a child process with limits, so that foreign code cannot take the compiler down.

Runtimes and model libraries can crash (SIGFPE, SIGSEGV), hang, or ask for all memory on a model of a few bytes. `call`
is the door through which ir, stats and passes run them: a fresh interpreter in a process group of its own, with a limit
on memory and time, no standard input, an empty private working directory and a cleaned environment. `supervise` does
the same for a whole command that keeps the terminal. The limits contain accidents; they are no defence against code
execution.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from onnxprune.errors import FileSystemError, LimitError, ModelError, OnnxpruneError

R = TypeVar("R")

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from onnxprune.sandbox import child_main; child_main(sys.argv[2])"
)
_REQUEST, _RESULT, _STDERR = "request.pickle", "result.pickle", "stderr.txt"
_GRACE_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO}
_FOREIGN = ("onnxruntime", "onnx", "google", "onnxscript", "onnx_ir", "torch")
_BUGS = (TypeError, AttributeError, NameError, ImportError)
_MEMORY_SIGNS = re.compile(
    r"bad_alloc|MemoryError|failed to map segment|[Cc]annot allocate|[Ff]ailed to allocate|out of memory", re.IGNORECASE
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f]+")


def call(
    function: Callable[..., R],
    *args: Any,
    memory_bytes: int | None = None,
    seconds: float | None = None,
    file_bytes: int | None = None,
    label: str = "",
    **kwargs: Any,
) -> R:
    """Runs `function(*args, **kwargs)` in a fresh process and returns its result.

    The function must be importable by name, arguments and result picklable. `Path` arguments are made absolute, since
    the child has another working directory. Limits: address space, wall time, size of a written file. `label` names the
    work in messages (default: the function's name).

    Raises what the function raised when that is an OnnxpruneError or a built-in exception; ModelError for an error or a
    crash of foreign code; LimitError when a limit was reached; FileSystemError when the disk refused.
    """
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        room = Path(folder)
        arguments = [_absolute(value) for value in args], {key: _absolute(value) for key, value in kwargs.items()}
        request = (function.__module__, function.__qualname__, memory_bytes, file_bytes)
        (room / _REQUEST).write_bytes(pickle.dumps(request) + pickle.dumps(arguments, protocol=5))
        name = label or function.__name__
        code = _run_child(room, memory_bytes, seconds, name)
        return _result(room, code, name)  # type: ignore[no-any-return]


def supervise(argv: Sequence[str], memory_bytes: int | None = None, seconds: float | None = None) -> int:
    """Runs a command with this process's standard streams and returns its exit code.

    SIGINT and SIGTERM are handed on (a second one, or ten seconds, kills); the code is then 130 or 143 whatever the
    command returned. Death by any other signal raises ModelError, or LimitError where it points to memory.
    """
    child = subprocess.Popen(list(argv), process_group=0, preexec_fn=lambda: limit(memory_bytes, None))
    with _forwarding(child) as received:
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LimitError(f"stopped after {seconds:g} s, the time limit; raise --timeout") from None
        finally:
            _kill_group(child)
    if received:
        return 128 + received[0]
    if code < 0:
        raise_death(-code, "", Path(argv[0]).name)
    return code


def clean_environment() -> dict[str, str]:
    """The environment for children: without the variables by which a model or a folder could steer the runtime."""
    unwanted = ("ORT_", "PYTHONSTARTUP", "PYTHONINSPECT")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def sanitise(text: str, limit: int = 300) -> str:
    """One printable line: no escape sequences, no control characters, at most `limit` characters."""
    line = " ".join(_CONTROL.sub(" ", text.encode("utf-8", "replace").decode()).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def out_of_memory(message: str) -> bool:
    """Whether the text of an error or of standard error says that memory ran out."""
    return _MEMORY_SIGNS.search(message) is not None


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies; does nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def child_main(folder: str) -> None:
    """Entry point of the child: reads the request in `folder`, runs it, writes the result beside it."""
    room = Path(folder)
    with (room / _REQUEST).open("rb") as stream:
        module, qualname, memory_bytes, file_bytes = pickle.load(stream)
        limit(memory_bytes, file_bytes)
        outcome = _outcome(module, qualname, stream)
    partial = room / (_RESULT + ".part")
    partial.write_bytes(outcome)
    partial.rename(room / _RESULT)
    # no interpreter shutdown: a runtime that crashes in its destructors has still delivered its result
    os._exit(0)


def _outcome(module: str, qualname: str, stream: Any) -> bytes:
    try:
        function: Any = importlib.import_module(module)
        for part in qualname.split("."):
            function = getattr(function, part)
        args, kwargs = pickle.load(stream)
        return pickle.dumps(("value", function(*args, **kwargs)), protocol=5)
    except OnnxpruneError as error:
        return pickle.dumps(("error", error))
    except BaseException as error:
        kind = type(error)
        home = kind.__module__ if isinstance(error, _BUGS) else _origin(error, kind.__module__)
        trace = "".join(traceback.format_exception(error))
        number = error.errno if isinstance(error, OSError) else None
        return pickle.dumps(("foreign", (home, kind.__name__, str(error), number, trace)))


def limit(memory_bytes: int | None, file_bytes: int | None) -> None:
    """Limits this process and what it starts: bytes of address space, bytes of a written file; no core files."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, size in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_FSIZE, file_bytes)):
        if size is not None:
            hard = resource.getrlimit(kind)[1]
            size = size if hard == resource.RLIM_INFINITY else min(size, hard)
            resource.setrlimit(kind, (size, size))


def _origin(error: BaseException, default: str) -> str:
    """The foreign module that raised the error, or the default: the runtimes raise built-in classes too."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = str(place.tb_frame.f_globals.get("__name__", "")) if place is not None else ""
    return module if module.split(".")[0] in _FOREIGN else default


def _run_child(room: Path, memory_bytes: int | None, seconds: float | None, name: str) -> int:
    cwd = room / "cwd"
    cwd.mkdir()
    paths = json.dumps([str(Path(entry or ".").absolute()) for entry in sys.path])
    environment = clean_environment() | {"TMPDIR": str(cwd)}
    if memory_bytes is not None:
        # every OpenBLAS thread maps its buffers at import: on a large host they alone exceed the limit
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    with (room / _STDERR).open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOTSTRAP, paths, str(room)],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LimitError(f"{name} took longer than {seconds:g} s, the time limit") from None
        finally:
            _kill_group(child)


def _result(room: Path, code: int, name: str) -> Any:
    result = room / _RESULT
    if code == 0 and result.is_file():
        with result.open("rb") as stream:
            kind, value = pickle.load(stream)
        if kind == "value":
            return value
        if kind == "error":
            raise value
        raise_foreign(*value)
    stderr = _tail(room / _STDERR)
    if code < 0:
        raise_death(-code, stderr, name)
    if out_of_memory(stderr):
        raise LimitError(f"{name} needs more memory than the limit")
    raise ModelError(f"{name} ended with exit code {code}: {_last_line(stderr)}")


def raise_foreign(module: str, name: str, message: str, number: int | None, trace: str) -> NoReturn:
    """Raises what an exception in a child means here, by its class, text and errno; its traceback becomes a note."""
    line = sanitise(message)
    if name == "MemoryError" or number == errno.ENOMEM or out_of_memory(message):
        raise LimitError(f"not enough memory within the limit ({line or name})")
    if number in _DISK_ERRORS:
        raise FileSystemError(line)
    kind = getattr(importlib.import_module("builtins"), name, None) if module == "builtins" else None
    if kind is None or module.split(".")[0] in _FOREIGN or not issubclass(kind, Exception):
        error: Exception = ModelError(line or name)
    else:
        error = RuntimeError(f"{name}: {line}") if kind is UnicodeDecodeError else kind(message)
    error.add_note(trace)
    raise error


def raise_death(number: int, stderr: str, name: str) -> NoReturn:
    """Raises what the death of a child by a signal means: a crash on this model, or a limit."""
    try:
        label = signal.Signals(number).name
    except ValueError:
        label = f"signal {number}"
    if number == signal.SIGXFSZ:
        raise LimitError(f"{name} wrote a file larger than the limit")
    if number == signal.SIGKILL or out_of_memory(stderr):
        raise LimitError(f"{name} was stopped by {label}: most likely not enough memory")
    detail = _last_line(stderr)
    raise ModelError(f"{name} crashed on this model ({label})" + (f": {detail}" if detail else ""))


def _tail(path: Path, size: int = 65536) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        return stream.read().decode("utf-8", "replace")


def _last_line(stderr: str) -> str:
    lines = [line for line in map(sanitise, stderr.splitlines()) if line]
    return lines[-1] if lines else ""


def _absolute(value: Any) -> Any:
    return value.absolute() if isinstance(value, Path) else value


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Hands SIGINT and SIGTERM on to the child while the block runs; yields the list of those received."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1 and time.monotonic() > first[0] + 0.2:
            child.kill()
            return
        first[:] = [time.monotonic()]
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)

    def expire(number: int, frame: FrameType | None) -> None:
        child.kill()

    first = [0.0]
    before: Mapping[int, Any] = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGINT, forward), (signal.SIGTERM, forward), (signal.SIGALRM, expire))
    }
    try:
        yield received
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
