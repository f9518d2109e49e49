"""The conversation with a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError, ModelError, ProviderError, UsageError
from runtime_bench import protocol
from runtime_bench.client import Worker, write_calls
from runtime_bench.target import Target


def test_a_message_survives_the_line() -> None:
    line = protocol.encode({"id": 3, "cmd": "run", "name": "naïve\n"})
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert protocol.decode(line) == {"v": protocol.VERSION, "id": 3, "cmd": "run", "name": "naïve\n"}


@pytest.mark.parametrize(
    "line", [b"", b"hello\n", b"[1]\n", b'{"id": 1}\n', b'{"v": 999, "id": 1}\n', b"\xff\xfe\n", b"[" * 100_000]
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(line)


def test_a_worker_loads_warms_and_runs(cpu: Target, conv: Path) -> None:
    with Worker(cpu) as worker:
        assert "CPUExecutionProvider" in worker.hello["providers"]
        loaded = worker.load(conv)
        assert loaded["inputs"] == [{"name": "x", "type": "tensor(float)", "shape": ["batch", 8, 16, 16]}]
        assert loaded["placement"]["CPUExecutionProvider"] >= 2
        assert worker.feed(None) == {"v": 1, "id": 3, "ok": True, "calls": 1, "synthetic": True}
        assert worker.warm_up()["runs"] >= 10
        turn = worker.run(2_000_000, 3)
        assert len(turn.values) >= 3 and sum(turn.values) >= 0.002
        assert all(1e-7 < v < 1 for v in turn.values)
    assert not worker.alive


def test_given_inputs_are_used(cpu: Target, conv: Path, tmp_path: Path) -> None:
    calls = [{"x": np.ones((n, 8, 16, 16), np.float32)} for n in (1, 2, 3)]
    with Worker(cpu) as worker:
        worker.load(conv)
        reply = worker.feed(write_calls(calls, tmp_path / "calls.npz"))
        assert (reply["calls"], reply["synthetic"]) == (3, False)
        wrong = write_calls([{"x": np.ones((1, 3, 16, 16), np.float32)}], tmp_path / "wrong.npz")
        with pytest.raises(ModelError, match=r"conv\.onnx"):
            worker.feed(wrong)


def test_text_inputs_are_never_pickled(tmp_path: Path) -> None:
    path = write_calls([{"t": np.array(["a", "longer"], dtype=object)}], tmp_path / "text.npz")
    with np.load(path, allow_pickle=False) as stored:
        assert stored["0/t"].tolist() == ["a", "longer"]


def test_faults_become_errors_and_the_worker_lives_on(cpu: Target, conv: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00 this is no model")
    with Worker(cpu) as worker:
        with pytest.raises(ProviderError, match="no model is loaded"):
            worker.run(1_000)
        with pytest.raises(ModelError, match=r"broken\.onnx") as caught:
            worker.load(broken)
        assert "\n" not in str(caught.value)
        with pytest.raises(ProviderError, match="no command 'dance'"):
            worker.ask("dance")
        worker.load(conv)
        worker.feed(None)
        assert worker.run(1_000).values


def test_open_dimensions_need_a_shape(gather: Path) -> None:
    with Worker(Target("cpu")) as worker:
        worker.load(gather)
        with pytest.raises(UsageError, match="--input-shape"):
            worker.feed(None)
    with Worker(Target("cpu", shapes={"ids": (1, 5)})) as worker:
        worker.load(gather)
        assert worker.feed(None)["synthetic"]
    with Worker(Target("cpu", shapes={"ids": (1, 5, 2)})) as worker:
        worker.load(gather)
        with pytest.raises(DataError, match="does not fit"):
            worker.feed(None)


def test_prints_of_foreign_code_stay_out_of_the_replies(scripted: Callable[[str], Worker]) -> None:
    body = "print('chatter'); os.write(1, b'native chatter\\n'); return {'said': True}"
    with scripted(body) as worker:
        assert worker.ask("odd")["said"] is True
        assert worker.ask("odd")["said"] is True
        assert worker.last_words() in ("chatter", "native chatter")


def test_the_optimised_graph_can_be_written(cpu: Target, conv: Path, tmp_path: Path) -> None:
    with Worker(cpu) as worker:
        assert worker.optimized(conv, tmp_path / "optimized.onnx")
    assert (tmp_path / "optimized.onnx").stat().st_size > 0
