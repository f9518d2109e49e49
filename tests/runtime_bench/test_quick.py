"""Short looks for the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import ModelError
from runtime_bench.quick import MIN_BLOCKS, Bench
from runtime_bench.target import Target


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(Target("cpu"), max_workers=3) as opened:
        yield opened


def test_a_ratio_and_its_error(bench: Bench, double: tuple[Path, Path]) -> None:
    one, two = double
    same, twice = bench.quick_ratio(one, [one, two], seconds=0.3)
    assert 0.8 < same.ratio < 1.25
    assert 1.4 < twice.ratio < 2.6
    assert 0 < twice.standard_error < 0.3
    assert twice.p50_s > twice.baseline_p50_s > 0


@pytest.mark.parametrize(("each", "blocks"), [(0.15, MIN_BLOCKS), (0.01, 25)], ids=["long", "short"])
def test_a_look_takes_its_time_whatever_a_run_takes(
    each: float, blocks: int, bench: Bench, double: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def turns(workers: list[Any], order: list[int], min_ns: int, min_runs: int, *, first: int) -> dict[int, Any]:
        clock[0] += 2 * each
        firsts.append(first)
        return {arm: SimpleNamespace(values=[each, each]) for arm in order}

    firsts: list[int] = []
    monkeypatch.setattr("runtime_bench.quick.interleaved", turns)
    monkeypatch.setattr("runtime_bench.quick.time.monotonic", lambda: clock[0])
    (look,) = bench.quick_ratio(double[0], [double[1]], seconds=0.495)
    assert look.ratio == 1 and firsts == list(range(blocks))


def test_workers_are_kept_for_the_next_look(bench: Bench, double: tuple[Path, Path]) -> None:
    assert bench.quick(double[0], seconds=0.02) > 0
    pids = {w.hello["pid"] for w in bench._loaded.values()}
    bench.quick(double[0], seconds=0.02)
    assert {w.hello["pid"] for w in bench._loaded.values()} == pids


def test_a_file_that_changed_is_measured_anew(tmp_path: Path, make_conv: Callable[..., bytes]) -> None:
    path = tmp_path / "model.onnx"
    with Bench(Target("cpu")) as bench:
        path.write_bytes(make_conv(16, 1))
        before = bench.quick(path, seconds=0.02)
        path.write_bytes(make_conv(16, 24))
        assert bench.quick(path, seconds=0.02) > 4 * before


def test_the_least_recently_used_model_leaves(make_conv: Callable[..., bytes]) -> None:
    with Bench(Target("cpu"), max_workers=2) as bench:
        for channels in (1, 2, 3, 4):
            bench.quick(make_conv(channels), seconds=0.001)
        workers = {w.hello["pid"] for w in bench._loaded.values()}
        assert len(bench._loaded) == 2 and len(workers) == 2 and not bench._spare


def test_a_broken_model_leaves_the_rest_usable(bench: Bench, conv: Path) -> None:
    with pytest.raises(ModelError):
        bench.quick(b"broken")
    assert bench.quick(conv, seconds=0.01) > 0


def test_feeds_reach_the_model(gather: Path) -> None:
    with Bench(Target("cpu"), {"ids": np.zeros((4, 9), np.int64)}) as bench:
        assert bench.quick(gather, seconds=0.01) > 0


def test_info_counts_operators_of_the_optimised_graph(bench: Bench, conv: Path) -> None:
    info = bench.info(conv, op_counts=True)
    assert info["inputs"][0]["name"] == "x"
    assert sum(info["op_counts"].values()) >= 1
    assert any(name.endswith("Conv") for name in info["op_counts"])


def test_many_small_models_in_one_worker(bench: Bench, make_conv: Callable[..., bytes]) -> None:
    models = [make_conv(c) for c in (2, 4, 16)] * 3 + [b"broken"] + [make_conv(32)]
    seconds = bench.measure_many(models)
    assert seconds[9] is None
    rest = [s for s in seconds if s is not None]
    assert len(rest) == 10 and all(1e-7 < s < 0.1 for s in rest)
    assert rest[-1] > min(rest[:9])
    again = bench.measure_many([models[0]])
    assert again[0] is not None


def test_a_model_that_kills_its_worker_costs_only_itself(make_conv: Callable[..., bytes]) -> None:
    with Bench(Target("cpu")) as bench:
        worker = bench._free()
        bench._spare.append(worker)
        worker.kill()
        real = bench._files.model

        def murderous(model: object) -> Path:
            if model == b"murder":
                for worker in started:
                    worker._process.kill()
                return real(make_conv(3))
            return real(model)

        started = []
        free = bench._free

        def noted() -> object:
            started.append(free())
            return started[-1]

        bench._free = noted  # type: ignore[method-assign, assignment]
        bench._files.model = murderous  # type: ignore[method-assign]
        first, lost, last = bench.measure_many([make_conv(2), b"murder", make_conv(2)])
        assert first is not None and lost is None and last is not None
        assert len(started) == 2


def test_leaving_ends_every_worker(conv: Path) -> None:
    with Bench(Target("cpu")) as bench:
        bench.quick(conv, seconds=0.01)
        bench.measure_many([conv])
        workers = [*bench._loaded.values(), *bench._spare]
    assert len(workers) == 2
    assert not any(w.alive for w in workers)
