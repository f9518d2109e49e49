"""How runs are timed inside a worker: the warm-up rule and one block of runs. The clock is a parameter for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

Clock = Callable[[], int]
Run = Callable[[int], object]
"""Runs the model once on the inputs of that number."""


@dataclass(frozen=True)
class WarmUp:
    """When a model counts as warm: at least `min_runs` runs, and the medians of the last two windows agree within
    `tolerance`. A window is `window` runs or `window_ns` of runs, whichever is longer. It gives up (`settled` false)
    after `max_ns`, once `floor` runs are done, so a model of seconds a run does not take minutes to warm.
    """

    min_runs: int = 10
    window: int = 5
    window_ns: int = 4_000_000
    tolerance: float = 0.02
    max_ns: int = 1_000_000_000
    floor: int = 3


@dataclass(frozen=True)
class Warmed:
    """Outcome of a warm-up. `p50_ns` is the median of the last window."""

    runs: int
    settled: bool
    p50_ns: int


def warm_up(run: Run, rule: WarmUp, clock: Clock = time.perf_counter_ns) -> Warmed:
    """Run until `rule` is satisfied or its time is up."""
    start = clock()
    medians: list[float] = []
    values: list[int] = []
    done = 0
    while True:
        values.append(_timed(run, done, clock))
        done += 1
        late = clock() - start >= rule.max_ns
        if len(values) >= rule.window and sum(values) >= rule.window_ns:
            medians.append(median(values))
            values = []
            if done >= rule.min_runs and _agree(medians, rule.tolerance):
                return Warmed(done, True, int(medians[-1]))
        if late and done >= rule.floor:
            return Warmed(done, False, int(medians[-1] if medians else median(values)))


def _agree(medians: list[float], tolerance: float) -> bool:
    return len(medians) >= 2 and abs(medians[-1] - medians[-2]) <= tolerance * min(medians[-2:])


def _timed(run: Run, number: int, clock: Clock) -> int:
    begin = clock()
    run(number)
    return clock() - begin


def block(
    run: Run, *, min_ns: int, min_runs: int, drop: int = 1, first: int = 0, clock: Clock = time.perf_counter_ns
) -> list[int]:
    """Nanoseconds of the runs of one block: `drop` runs are thrown away (the switch between workers chills the caches),
    then runs are kept until there are `min_runs` of them and they took `min_ns` together. `first` numbers the first
    kept run, so that every model of a comparison sees the same inputs in the same order.
    """
    for number in range(drop):
        run(first + number)
    values: list[int] = []
    total = 0
    while len(values) < min_runs or total < min_ns:
        values.append(_timed(run, first + len(values), clock))
        total += values[-1]
    return values


def probe(run: Run, *, min_ns: int, blocks: int = 3, clock: Clock = time.perf_counter_ns) -> int:
    """A cheap figure for a tiny model: the least of the medians of a few short blocks that take `min_ns` together."""
    share = max(1, min_ns // blocks)
    warm_up(run, WarmUp(min_runs=3, window=2, window_ns=share // 2, tolerance=0.05, max_ns=2 * share, floor=2), clock)
    return int(min(median(block(run, min_ns=share, min_runs=3, drop=0, clock=clock)) for _ in range(blocks)))
