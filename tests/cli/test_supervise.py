"""The working process: its results, its errors, its deaths and its limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onnxprune.cli import supervise
from onnxprune.cli.supervise import Limits
from onnxprune.errors import AccuracyError, FileSystemError, LimitError, ModelError
from onnxprune.progress import SilentProgress

TASKS = """
import ctypes, os, signal, subprocess, sys, time
from onnxprune.errors import AccuracyError


def echo(request, progress):
    progress.stage("one", "detail", remaining=3.0)
    progress.decide("kept 3 of 4")
    progress.table([["a", "b"], ["1", "2"]])
    return {"got": request["value"], "tmp": os.environ["TMPDIR"]}


def noisy(request, progress):
    for stream in (1, 2):
        os.write(stream, b"native noise" * 20000)
    return {"ok": True}


def gate(request, progress):
    raise AccuracyError("drift is 0.7, over 0.5")


def bug(request, progress):
    return {"x": [][1]}


def disk(request, progress):
    raise OSError(28, "No space left on device", "/somewhere/x.onnx")


def foreign(request, progress):
    kind = type("InvalidGraph", (Exception,), {"__module__": "onnxruntime.capi"})
    raise kind("[ONNXRuntimeError] bad\\nsecond line")


def die(request, progress):
    os.kill(os.getpid(), request["signal"])
    time.sleep(30)


def leave(request, progress):
    os._exit(9)


def hoard(request, progress):
    return {"size": len(bytearray(6 << 30))}


def sleep(request, progress):
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    progress.decide(f"{os.getpid()} {helper.pid}")
    time.sleep(60)
"""


class Heard(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        self.events.append((name, detail, remaining))

    def decide(self, text: str) -> None:
        self.events.append(text)

    def table(self, rows: Any) -> None:
        self.events.append(rows)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "supervised_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def start(task: str, *, limits: Limits | None = None, heard: Heard | None = None, **request: Any) -> dict[str, Any]:
        return supervise.run(
            f"supervised_tasks:{task}",
            request,
            progress=heard or Heard(),
            limits=limits or Limits(),
            scratch=tmp_path,
        )

    return start


def gone(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(*processes: int) -> None:
    deadline = time.monotonic() + 10
    while not all(map(gone, processes)):
        assert time.monotonic() < deadline, f"{processes} are still alive"
        time.sleep(0.05)


def test_result_and_events_arrive_in_order(run: Any, tmp_path: Path) -> None:
    heard = Heard()
    assert run("echo", heard=heard, value=[1, "ä"]) == {"got": [1, "ä"], "tmp": str(tmp_path)}
    assert heard.events == [("one", "detail", 3.0), "kept 3 of 4", [["a", "b"], ["1", "2"]]]


def test_native_output_is_swallowed_and_never_blocks(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("noisy") == {"ok": True}
    assert capfd.readouterr() == ("", "")


def test_errors_keep_their_class_and_text(run: Any) -> None:
    with pytest.raises(AccuracyError, match=r"^drift is 0\.7, over 0\.5") as caught:
        run("gate")
    assert caught.value.args == ("drift is 0.7, over 0.5",)
    assert "supervised_tasks.py" in caught.value.__notes__[0]


def test_foreign_errors_are_about_the_model_and_one_line(run: Any) -> None:
    with pytest.raises(ModelError, match="bad second line"):
        run("foreign")


def test_a_full_disk_is_a_file_system_error(run: Any) -> None:
    with pytest.raises(FileSystemError, match="No space left"):
        run("disk")


def test_a_bug_stays_what_it_is(run: Any) -> None:
    with pytest.raises(IndexError, match="list index"):
        run("bug")


@pytest.mark.parametrize("number", [signal.SIGFPE, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_names_the_signal(run: Any, number: signal.Signals) -> None:
    with pytest.raises(ModelError, match=number.name):
        run("die", signal=int(number))


def test_a_kill_points_to_memory(run: Any) -> None:
    with pytest.raises(LimitError, match="memory"):
        run("die", signal=int(signal.SIGKILL))


def test_a_silent_exit_is_an_internal_error(run: Any) -> None:
    with pytest.raises(RuntimeError, match="exit code 9"):
        run("leave")


def test_memory_limit(run: Any) -> None:
    with pytest.raises(LimitError, match="memory"):
        run("hoard", limits=Limits(memory=3 << 30))


def test_time_limit_ends_the_child_and_its_children(run: Any) -> None:
    heard = Heard()
    start = time.monotonic()
    with pytest.raises(LimitError, match="--timeout"):
        run("sleep", limits=Limits(seconds=1.5), heard=heard)
    assert time.monotonic() - start < 10
    wait_until_gone(*map(int, heard.events[0].split()))


def test_the_child_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "supervised_tasks.py").write_text(TASKS)
    script = (
        "import sys; from pathlib import Path; from onnxprune.cli import supervise; "
        "from onnxprune.progress import PlainProgress; supervise.run('supervised_tasks:sleep', {}, "
        "progress=PlainProgress(verbose=True), limits=supervise.Limits(), scratch=Path('.'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, cwd=tmp_path, env=environment, text=True
    )
    assert parent.stderr is not None
    with parent.stderr:
        processes = [int(text) for text in parent.stderr.readline().split()]
        parent.kill()
        parent.wait()
    os.kill(processes[1], signal.SIGKILL)
    wait_until_gone(processes[0])


def test_default_memory_grows_with_the_inputs(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    with large.open("wb") as stream:
        stream.truncate(1 << 30)
    first, second = supervise.default_memory(small, None), supervise.default_memory(large, tmp_path)
    assert 4 << 30 <= first <= second
