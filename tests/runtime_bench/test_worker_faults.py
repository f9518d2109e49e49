"""Crashes, hangs, garbage and interrupts: always one of our errors in time, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import FileSystemError, LimitError, OnnxpruneError, ProviderError, UsageError
from runtime_bench import client
from runtime_bench.client import Worker
from runtime_bench.target import Target

REPLY = "import json,sys\nid = json.loads(sys.stdin.readline())['id']\n"


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "SIGABRT"),
        ("print('the last straw', file=sys.stderr, flush=True); os._exit(3)", "exit status 3.*the last straw"),
    ],
)
def test_a_crash_is_a_provider_error(scripted: Callable[[str], Worker], body: str, message: str) -> None:
    with scripted(body) as worker:
        with pytest.raises(ProviderError, match=message):
            worker.ask("odd")
        assert not worker.alive
        with pytest.raises(OnnxpruneError):
            worker.ask("hello")


def test_a_kill_from_outside_is_taken_for_lack_of_memory(scripted: Callable[[str], Worker]) -> None:
    with scripted("os.kill(os.getpid(), signal.SIGKILL)") as worker, pytest.raises(LimitError, match="memory"):
        worker.ask("odd")


def test_control_characters_of_a_crash_are_not_repeated(scripted: Callable[[str], Worker]) -> None:
    body = "os.write(2, b'\\x1b[31mred\\x07\\n'); os._exit(1)"
    with scripted(body) as worker, pytest.raises(ProviderError) as caught:
        worker.ask("odd")
    assert "red" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_hang_ends_in_time(scripted: Callable[[str], Worker]) -> None:
    with scripted("time.sleep(60)", timeout=0.5) as worker:
        pid = worker.hello["pid"]
        begin = time.monotonic()
        with pytest.raises(LimitError, match=r"no answer to 'odd' on cpu within 0\.5 s"):
            worker.ask("odd")
        assert time.monotonic() - begin < 5
        assert gone(pid)


def test_running_out_of_memory_is_a_limit(scripted: Callable[[str], Worker]) -> None:
    with scripted("raise MemoryError") as worker, pytest.raises(LimitError, match="memory"):
        worker.ask("odd")


def test_a_memory_limit_holds(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    size = numpy_helper.from_array(np.array([2**28], dtype=np.int64), "size")
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["big"]), helper.make_node("Add", ["big", "x"], ["y"])],
        "bomb",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2**28])],
        [size],
    )
    bomb = tmp_path / "bomb.onnx"
    bomb.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with Worker(Target("cpu"), max_memory=1 << 30) as worker, pytest.raises(LimitError):
        worker.load(bomb)
        worker.feed(None)


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(FileSystemError, match="TMPDIR"):
        Worker(Target("cpu"))


@pytest.mark.parametrize(
    "program",
    [
        "print('Welcome to this host')",
        "import os; os.write(1, bytes(range(256)) + b'\\n')",
        REPLY + "print(json.dumps({'v': 1, 'id': id + 1, 'ok': True}))",
        REPLY + "print(json.dumps({'v': 1, 'id': id}))",
        REPLY + "print(json.dumps({'v': 2, 'id': id, 'ok': True, 'providers': []}))",
        REPLY + "print(json.dumps({'v': 1, 'id': id, 'ok': True}))",
    ],
)
def test_garbage_is_a_provider_error(impostor: Callable[[str], Worker], program: str) -> None:
    with impostor(program + "\nimport time; time.sleep(30)") as worker:
        # program output is buffered unless flushed at exit: PYTHONUNBUFFERED is part of the worker's environment
        with pytest.raises(ProviderError, match="garbage"):
            _ = worker.hello
        assert not worker.alive


def test_a_line_without_end_is_garbage(impostor: Callable[[str], Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_LINE", 1 << 20)
    with (
        impostor("import os\nwhile True: os.write(1, b'x' * 65536)") as worker,
        pytest.raises(ProviderError, match="without end"),
    ):
        _ = worker.hello


def test_times_that_are_no_times_are_garbage(impostor: Callable[[str], Worker]) -> None:
    program = REPLY + "print(json.dumps({'v': 1, 'id': id, 'ok': True, 'ns': [5, -1]}))"
    with impostor(program) as worker, pytest.raises(ProviderError, match="garbage"):
        worker.run(1_000)


def test_closed_output_is_no_hang(impostor: Callable[[str], Worker]) -> None:
    with impostor("import os, time\nos.close(1)\ntime.sleep(60)") as worker:
        begin = time.monotonic()
        with pytest.raises(ProviderError, match="closed its output"):
            _ = worker.hello
        assert time.monotonic() - begin < 15


def test_a_missing_interpreter_is_said() -> None:
    with pytest.raises(UsageError, match="no Python interpreter"):
        Worker(Target("cpu", interpreter="/nowhere/python"))


def test_an_interpreter_without_onnxruntime_is_said(tmp_path: Path) -> None:
    program = "import sys; sys.modules['onnxruntime'] = None; import runtime_bench.worker"
    with pytest.raises(ProviderError, match="onnxruntime"):
        Worker(Target("cpu"), command=[sys.executable, "-c", program])


# Tests that run in the background inherit an ignored SIGINT; the parent is to be one that it interrupts.
PARENT = """
import signal, sys, time
from runtime_bench.client import Worker
from runtime_bench.target import Target
signal.signal(signal.SIGINT, signal.default_int_handler)
worker = Worker(Target("cpu"), command=[sys.executable, "-c", {script!r}])
print(worker.hello["pid"], worker._home.name, flush=True)
try:
    worker.ask("odd")
finally:
    worker.close()
"""
BUSY = """
import runtime_bench.worker as w, time
def odd(worker, request):
    while True:
        time.sleep(0.1)
w.COMMANDS = {**w.COMMANDS, "odd": odd}
w.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_survives_its_parent(number: signal.Signals) -> None:
    """Even a busy one, and even when the parent had no chance to clean up."""
    program = PARENT.format(script=BUSY)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        try:
            pid, home = parent.stdout.readline().split()
            time.sleep(0.2)
            parent.send_signal(number)
            assert gone(int(pid))
            parent.wait(10)
        finally:
            parent.kill()
    assert not Path(home).exists()


def test_a_worker_that_is_forgotten_is_ended() -> None:
    worker = Worker(Target("cpu"))
    pid = worker.hello["pid"]
    del worker
    assert gone(pid)
