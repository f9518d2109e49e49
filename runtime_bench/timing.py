"""How runs are timed inside a worker: the warm-up rule and one block of runs.

A run in which the kernel took the core away for another process says nothing of the model, and on a busy machine such
runs would swamp the others. They are told by the process's count of involuntary context switches, left out as long as
there are enough others, and counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

Run = Callable[[int], object]
"""Runs the model once on the inputs of that number."""


def _count_preemptions() -> Callable[[], int]:
    try:
        import resource
    except ImportError:
        return lambda: 0
    return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True)
class Meter:
    """A clock in nanoseconds, and how often this process has been preempted so far. Replaced in tests."""

    clock: Callable[[], int] = time.perf_counter_ns
    preemptions: Callable[[], int] = field(default_factory=_count_preemptions)

    def time(self, run: Run, number: int) -> tuple[int, bool]:
        """Nanoseconds of one run, and whether it was left alone."""
        before = self.preemptions()
        begin = self.clock()
        run(number)
        spent = self.clock() - begin
        return spent, self.preemptions() == before


METER = Meter()


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


def warm_up(run: Run, rule: WarmUp, meter: Meter = METER) -> Warmed:
    """Run until `rule` is satisfied or its time is up. Preempted runs count as runs, but not towards a window."""
    start = meter.clock()
    medians: list[float] = []
    values: list[int] = []
    done = last = 0
    while True:
        last, alone = meter.time(run, done)
        done += 1
        if alone:
            values.append(last)
        if len(values) >= rule.window and sum(values) >= rule.window_ns:
            medians.append(median(values))
            values = []
            if done >= rule.min_runs and _agree(medians, rule.tolerance):
                return Warmed(done, True, int(medians[-1]))
        if done >= rule.floor and meter.clock() - start >= rule.max_ns:
            return Warmed(done, False, int(medians[-1] if medians else median(values or [last])))


def _agree(medians: list[float], tolerance: float) -> bool:
    return len(medians) >= 2 and abs(medians[-1] - medians[-2]) <= tolerance * min(medians[-2:])


@dataclass(frozen=True)
class Block:
    """Nanoseconds of the kept runs of one block, and how many were left out because the process was preempted."""

    values: list[int]
    preempted: int


def block(
    run: Run, *, min_ns: int, min_runs: int, drop: int = 1, first: int = 0, patience: int = 3, meter: Meter = METER
) -> Block:
    """Time one block: `drop` runs are thrown away (the switch between workers chills the caches), then runs are timed
    until `min_runs` undisturbed ones took `min_ns` together. After `patience` times that time and twice those runs it
    makes do with what it has: fewer than `min_runs` undisturbed ones are joined by the quickest of the others, the ones
    that lost least. `first` numbers the first kept run, so that every model of a comparison sees the same inputs in the
    same order.
    """
    for number in range(drop):
        run(first + number)
    kept: list[int] = []
    lost: list[int] = []
    total = total_kept = 0
    while len(kept) < min_runs or total_kept < min_ns:
        done = len(kept) + len(lost)
        if done >= 2 * min_runs and total >= patience * min_ns:
            break
        spent, alone = meter.time(run, first + done)
        (kept if alone else lost).append(spent)
        total += spent
        total_kept += spent if alone else 0
    missing = max(0, min_runs - len(kept))
    return Block(kept + sorted(lost)[:missing], max(0, len(lost) - missing))


def probe(run: Run, *, min_ns: int, blocks: int = 3, meter: Meter = METER) -> int:
    """A cheap figure for a tiny model: the least of the medians of a few short blocks that take `min_ns` together."""
    share = max(1, min_ns // blocks)
    rule = WarmUp(min_runs=3, window=2, window_ns=share // 2, tolerance=0.05, max_ns=2 * share, floor=2)
    warm_up(run, rule, meter)
    turns = [block(run, min_ns=share, min_runs=3, drop=0, meter=meter) for _ in range(blocks)]
    return int(min(median(turn.values) for turn in turns))
