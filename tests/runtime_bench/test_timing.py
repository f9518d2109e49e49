"""The warm-up rule and blocks, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import pytest

from runtime_bench.timing import Meter, WarmUp, block, probe, warm_up

MS = 1_000_000


class Model:
    """Takes the next of the given times at every run; with `preempted`, some runs lose the core."""

    def __init__(self, times: Iterator[int], preempted: Iterator[bool] | None = None) -> None:
        self.times, self.losses = times, preempted or repeat(False)
        self.now = self.switches = 0
        self.seen: list[int] = []

    def __call__(self, number: int) -> None:
        self.seen.append(number)
        self.now += next(self.times)
        self.switches += next(self.losses)

    @property
    def meter(self) -> Meter:
        return Meter(lambda: self.now, lambda: self.switches)


def test_an_even_model_is_warm_after_ten_runs() -> None:
    model = Model(repeat(MS))
    assert warm_up(model, WarmUp(), model.meter).runs == 10
    assert warm_up(model, WarmUp(), model.meter).settled


def test_a_model_that_still_gets_faster_is_run_on() -> None:
    model = Model(chain((int(20 * MS * 0.9**k) for k in range(30)), repeat(MS)))
    warmed = warm_up(model, WarmUp(), model.meter)
    assert warmed.settled and warmed.p50_ns == MS
    assert warmed.runs >= 35


def test_two_per_cent_is_the_limit() -> None:
    within = Model(chain(repeat(100 * MS, 5), repeat(102 * MS, 5), repeat(1)))
    assert warm_up(within, WarmUp(max_ns=10**12), within.meter).runs == 10
    beyond = Model(chain(repeat(100 * MS, 5), repeat(103 * MS, 5), repeat(103 * MS)))
    assert warm_up(beyond, WarmUp(max_ns=10**12), beyond.meter).runs == 15


def test_warming_up_is_bounded() -> None:
    restless = Model(MS * (1 + k // 5 % 2) for k in range(10**6))
    warmed = warm_up(restless, WarmUp(), restless.meter)
    assert not warmed.settled and restless.now <= 1002 * MS
    slow = Model(repeat(5000 * MS))
    assert warm_up(slow, WarmUp(), slow.meter).runs == 3


def test_a_short_model_fills_its_window() -> None:
    model = Model(repeat(MS // 100))
    assert warm_up(model, WarmUp(), model.meter).runs == 800


def test_a_block_drops_the_first_run_and_fills_its_time() -> None:
    model = Model(chain([90 * MS], repeat(4 * MS)))
    turn = block(model, min_ns=30 * MS, min_runs=3, meter=model.meter)
    assert turn.values == [4 * MS] * 8 and turn.preempted == 0


def test_a_block_has_at_least_its_runs() -> None:
    model = Model(repeat(200 * MS))
    assert len(block(model, min_ns=30 * MS, min_runs=3, meter=model.meter).values) == 3


def test_inputs_are_numbered_from_the_first_kept_run() -> None:
    model = Model(repeat(10 * MS))
    block(model, min_ns=30 * MS, min_runs=3, first=5, meter=model.meter)
    assert model.seen == [5, 5, 6, 7]


def test_preempted_runs_are_left_out_and_counted() -> None:
    slow_and_lost = [(5 * MS, True), (MS, False), (MS, False)] * 100
    model = Model((t for t, _ in slow_and_lost), (p for _, p in slow_and_lost))
    turn = block(model, min_ns=10 * MS, min_runs=3, drop=0, meter=model.meter)
    assert set(turn.values) == {MS} and len(turn.values) >= 8
    assert 3 <= turn.preempted <= 5


def test_a_block_without_peace_keeps_the_runs_that_lost_least() -> None:
    model = Model(chain(repeat(10 * MS, 5), [4 * MS, 7 * MS], repeat(10 * MS)), repeat(True))
    turn = block(model, min_ns=30 * MS, min_runs=3, meter=model.meter)
    assert turn.values == [4 * MS, 7 * MS, 10 * MS] and turn.preempted == 7


def test_the_little_peace_there_is_counts() -> None:
    model = Model(repeat(10 * MS), chain([False, True, False], repeat(True)))
    turn = block(model, min_ns=30 * MS, min_runs=3, meter=model.meter)
    assert len(turn.values) == 3 and turn.preempted == 6


def test_preempted_runs_do_not_count_as_warm() -> None:
    model = Model(chain(repeat(9 * MS, 10), repeat(MS)), chain(repeat(True, 10), repeat(False)))
    warmed = warm_up(model, WarmUp(), model.meter)
    assert warmed.settled and warmed.p50_ns == MS


@pytest.mark.parametrize("spike", [0, 1, 2])
def test_a_probe_takes_the_quietest_block(spike: int) -> None:
    def times() -> Iterator[int]:
        yield from repeat(MS // 10, 60)
        for k in range(10_000):
            yield MS // 10 * (3 if k // 17 % 3 == spike else 1)

    model = Model(times())
    assert probe(model, min_ns=5 * MS, meter=model.meter) == MS // 10
