"""A command's exit code, time, memory and descendants are measured as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import descendants, run, tree_bytes

MEGABYTE = 1_000_000


def test_exit_code_and_both_streams(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)"
    ran = run([sys.executable, "-c", code], cwd=tmp_path, timeout=60)
    assert (ran.exit_code, ran.stdout, ran.stderr, ran.timed_out) == (4, "out\n", "err\n", False)


def test_environment_and_folder_are_the_commands_own(tmp_path: Path) -> None:
    code = "import os; print(os.environ['BENCHMARK_WORD'], os.getcwd())"
    ran = run([sys.executable, "-c", code], cwd=tmp_path, environment={"BENCHMARK_WORD": "word"}, timeout=60)
    assert ran.stdout.split() == ["word", str(tmp_path.resolve())]
    assert "BENCHMARK_WORD" not in os.environ


def test_memory_of_a_child_counts(tmp_path: Path) -> None:
    held = "b = bytearray(120_000_000); b[::4096] = b'x' * len(b[::4096])"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}], check=True)"
    ran = run([sys.executable, "-c", code], cwd=tmp_path, timeout=60)
    assert ran.exit_code == 0, ran.stderr
    assert ran.peak_bytes > 120 * MEGABYTE


def test_cpu_seconds_are_of_work_only(tmp_path: Path) -> None:
    asleep = run([sys.executable, "-c", "import time; time.sleep(0.8)"], cwd=tmp_path, timeout=60)
    assert asleep.seconds >= 0.8
    assert asleep.cpu_seconds < asleep.seconds


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    ran = run([sys.executable, "-c", "import time; time.sleep(60)"], cwd=tmp_path, timeout=0.5)
    assert ran.timed_out
    assert ran.exit_code < 0
    assert ran.seconds < 30


def test_descendants_follow_parents() -> None:
    parents = {10: 1, 11: 10, 12: 11, 13: 10, 20: 1, 21: 20}
    assert sorted(descendants(10, parents)) == [10, 11, 12, 13]
    assert list(descendants(99, parents)) == []


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_a_tree_is_larger_than_its_root() -> None:
    alone = tree_bytes(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = tree_bytes(os.getpid())
        own = tree_bytes(child.pid)
        child.communicate(b"\n")
    assert own > 0
    assert together >= alone + own // 2
