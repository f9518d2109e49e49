"""The sandbox turns crashes, hangs and memory hunger of a child into errors of ours, and leaves nothing behind."""

from __future__ import annotations

import functools
import math
import operator
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx.checker
import pytest

from onnxprune import sandbox
from onnxprune.errors import FileSystemError, LimitError, ModelError
from onnxprune.ir import trial


def test_results_come_back():
    assert sandbox.call(math.hypot, 3, 4) == 5
    assert sandbox.call(functools.reduce, operator.add, [[1], [2]]) == [1, 2]
    assert len(sandbox.call(bytes, 50_000_000)) == 50_000_000


def test_each_call_is_a_fresh_process_without_input_in_an_empty_folder():
    assert sandbox.call(os.getpid) not in (os.getpid(), sandbox.call(os.getpid))
    assert sandbox.call(os.listdir) == []
    assert sandbox.call(os.read, 0, 10) == b""
    assert sandbox.call(os.getpgrp) != os.getpgrp()
    assert sandbox.call(resource.getrlimit, resource.RLIMIT_CORE) == (0, 0)


def test_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = sandbox.call(os.getcwd)
    assert folder.startswith(str(tmp_path))
    with pytest.raises(LimitError):
        sandbox.call(time.sleep, 60, seconds=0.3)
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_are_resolved(tmp_path, monkeypatch):
    (tmp_path / "here.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    assert sandbox.call(Path.read_text, Path("here.txt")) == "text"


def test_the_environment_is_cleaned(monkeypatch):
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.setenv("ONNXPRUNE_TEST", "kept")
    assert sandbox.call(os.getenv, "ORT_LOAD_CONFIG_FROM_MODEL") is None
    assert sandbox.call(os.getenv, "ONNXPRUNE_TEST") == "kept"
    assert "ORT_LOAD_CONFIG_FROM_MODEL" not in sandbox.clean_environment()


def test_limits_on_memory_time_and_files(tmp_path):
    with pytest.raises(LimitError, match="memory"):
        sandbox.call(bytes, 2 << 30, memory_bytes=1 << 30)
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"a nap took longer than 0\.5 s"):
        sandbox.call(time.sleep, 60, seconds=0.5, label="a nap")
    assert time.monotonic() - start < 10
    source = tmp_path / "source"
    source.write_bytes(bytes(1 << 20))
    with pytest.raises((LimitError, FileSystemError)):
        sandbox.call(shutil.copyfile, source, tmp_path / "copy", file_bytes=1 << 16)


def test_grandchildren_die_with_the_call():
    with pytest.raises(LimitError):
        sandbox.call(subprocess.run, ["sh", "-c", "sleep 300; : onnxprune-grandchild"], seconds=1)
    time.sleep(0.2)
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK))
    assert not any(b"onnxprune-grandchild" in command and b"pytest" not in command for command in _readable(commands))


def _readable(commands):
    while True:
        try:
            yield next(commands)
        except StopIteration:
            return
        except OSError:
            continue


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGILL, signal.SIGBUS])
def test_a_crash_is_an_error_of_the_model(number):
    with pytest.raises(ModelError, match=signal.Signals(number).name):
        sandbox.call(signal.raise_signal, number)


def test_a_kill_from_outside_is_taken_for_lack_of_memory():
    with pytest.raises(LimitError, match="SIGKILL"):
        sandbox.call(signal.raise_signal, signal.SIGKILL)


def test_an_exit_without_result_is_an_error():
    with pytest.raises(ModelError, match="exit code 3"):
        sandbox.call(os._exit, 3)


def test_errors_of_ours_are_raised_again():
    with pytest.raises(ModelError, match="refuses"):
        sandbox.call(trial.run_once, b"not a model")


def test_foreign_errors_become_errors_of_the_model():
    with pytest.raises(ModelError) as caught:
        sandbox.call(onnx.checker.check_model, b"\xff\xff")
    assert "\n" not in str(caught.value)


def test_bugs_keep_their_class_and_show_the_childs_traceback():
    with pytest.raises(ValueError, match="math domain error") as caught:
        sandbox.call(math.sqrt, -1)
    assert any("Traceback" in note for note in caught.value.__notes__)


def test_disk_errors():
    with pytest.raises(FileSystemError, match="No space"):
        sandbox.call(Path.write_text, Path("/dev/full"), "x")


def test_sanitise():
    assert sandbox.sanitise("a\x1b[31mred\x1b[0m\nb\r\tc\x00\x07d") == "a red b c d"
    assert len(sandbox.sanitise("x" * 1000)) == 300
    assert sandbox.sanitise("bad \udcff") == "bad ?"


def test_native_output_is_captured_and_shown_on_death(capfd):
    with pytest.raises(ModelError, match="exit code 7: last words"):
        sandbox.call(os.execvp, "sh", ["sh", "-c", "echo first; printf '\\033[1mlast words\\033[0m\\n' >&2; exit 7"])
    assert capfd.readouterr() == ("", "")


# In the background SIGINT is inherited as ignored; this child is to be one that it ends.
SLEEPER = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
time.sleep(60)
"""
SUPERVISOR = f"""
import sys
from onnxprune import sandbox
sys.exit(sandbox.supervise([sys.executable, "-c", {SLEEPER!r}]))
"""


def test_supervise_returns_the_exit_code():
    assert sandbox.supervise([sys.executable, "-c", "raise SystemExit(5)"]) == 5
    assert sandbox.supervise(["true"]) == 0


def test_supervise_maps_death_and_limits():
    with pytest.raises(ModelError, match="SIGSEGV"):
        sandbox.supervise(["sh", "-c", "kill -SEGV $$"])
    with pytest.raises(LimitError, match="SIGKILL"):
        sandbox.supervise(["sh", "-c", "kill -KILL $$"])
    with pytest.raises(LimitError, match=r"0\.5 s"):
        sandbox.supervise(["sleep", "60"], seconds=0.5)
    assert sandbox.supervise([sys.executable, "-c", "bytes(2 << 30)"], memory_bytes=1 << 30) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_supervise_hands_signals_on(number, code):
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(20) == code


def test_a_child_dies_with_its_parent():
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        start = time.monotonic()
        assert process.stdout.read() == b"", "the child holds the other end until it dies"
        assert time.monotonic() - start < 10
