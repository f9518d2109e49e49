"""The full protocol: several models, fresh processes at every launch, random order in every block, an A/A control."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from runtime_bench import affinity, scratch, statistics
from runtime_bench.client import STEP_SECONDS, Turn, Worker
from runtime_bench.feeding import Feeding, Files, ModelLike
from runtime_bench.host import host
from runtime_bench.result import Arm, Comparison, Values
from runtime_bench.target import Target

LAUNCHES = 6
BLOCKS = 8
BLOCK_NS = 30_000_000
BLOCK_RUNS = 3

Progress = Callable[[float, str], None]
"""Called with the finished share (0 to 1) and what is being done."""


def compare(
    models: Sequence[ModelLike],
    target: Target,
    feeds: Feeding = None,
    *,
    launches: int = LAUNCHES,
    blocks: int = BLOCKS,
    seed: int = 0,
    names: Sequence[str] | None = None,
    timeout: float = STEP_SECONDS,
    max_seconds: float = 20.0,
    progress: Progress | None = None,
) -> Comparison:
    """Measure one or more models; the first is the baseline of every speedup.

    At every launch each model, and the baseline a second time as the A/A control, gets a fresh worker; in every block
    each of them has its turn of at least 30 ms and 3 kept runs, in random order. `blocks` is the number of blocks a
    launch, lowered (to no fewer than 3, before the first block) when slow models would take more than `max_seconds`.
    `timeout` is for one request to a worker, in seconds.

    Raises UsageError, ModelError, DataError, ProviderError, LimitError.
    """
    if not models or launches < 1 or blocks < 1:
        raise UsageError("a comparison needs at least one model, one launch and one block")
    begin = time.perf_counter()
    with scratch.folder("onnxprune-bench-") as folder:
        files = Files(target, feeds, Path(folder))
        paths = [files.model(m) for m in models]
        course = _Course(files, [*paths, *paths[:1]] if len(paths) > 1 else paths, seed, timeout, progress)
        course.all_launches(launches, blocks, max_seconds)
    return course.comparison(
        tuple(names or _names(paths)), seed=seed, seconds=time.perf_counter() - begin, synthetic=feeds is None
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, with as many folders before them as it takes to tell them apart."""
    for parts in (1, 2, 3):
        names = ["/".join(p.resolve().parts[-parts:]) for p in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(p) for p in paths]


def interleaved(
    workers: Sequence[Worker], order: Sequence[int], min_ns: int, min_runs: int, *, first: int = 0
) -> dict[int, Turn]:
    """One turn of each worker, in `order`; with one thread, all on the core that the first one ran on."""
    core = affinity.HERE if workers[0].target.threads == 1 else None
    turns = {}
    for arm in order:
        turns[arm] = workers[arm].run(min_ns, min_runs, first=first, core=core)
        core = turns[arm].core
    return turns


class _Course:
    """The measurement under way: values by arm, launch and block, and what workers said of themselves."""

    def __init__(
        self, files: Files, paths: Sequence[Path], seed: int, timeout: float, progress: Progress | None
    ) -> None:
        self.files, self.paths, self.timeout = files, paths, timeout
        self.rng = np.random.default_rng(seed)
        self.progress = progress or (lambda share, text: None)
        self.values: list[list[list[tuple[float, ...]]]] = [[] for _ in paths]
        self.loaded: list[dict[str, Any]] = [{} for _ in paths]
        self.warmed: list[list[dict[str, Any]]] = [[] for _ in paths]
        self.preempted = [0 for _ in paths]
        self.runtime = ""

    def all_launches(self, launches: int, blocks: int, max_seconds: float) -> None:
        for launch in range(launches):
            with self._workers() as workers:
                if launch == 0:
                    blocks = self._affordable(launches, blocks, max_seconds)
                for block in range(blocks):
                    self.progress((launch + block / blocks) / launches, f"launch {launch + 1} of {launches}")
                    self._block(workers, block)
        self.progress(1.0, "measured")

    @contextlib.contextmanager
    def _workers(self) -> Iterator[list[Worker]]:
        """Fresh, loaded and warm workers, one an arm. They start together and are asked one at a time."""
        with contextlib.ExitStack() as stack:
            workers: list[Worker] = []
            for _ in self.paths:
                workers.append(
                    stack.enter_context(Worker(self.files.target, timeout=self.timeout, greet=bool(not workers)))
                )
            for arm in self._order():
                self._prepare(arm, workers[arm])
            for values in self.values:
                values.append([])
            yield workers

    def _prepare(self, arm: int, worker: Worker) -> None:
        self.runtime = str(worker.hello["onnxruntime"])
        self.loaded[arm] = worker.load(self.paths[arm])
        worker.feed(self.files.inputs(self.loaded[arm]["inputs"]))
        self.warmed[arm].append(worker.warm_up())

    def _order(self) -> list[int]:
        return [int(arm) for arm in self.rng.permutation(len(self.paths))]

    def _block(self, workers: Sequence[Worker], block: int) -> None:
        for arm, turn in interleaved(workers, self._order(), BLOCK_NS, BLOCK_RUNS, first=block).items():
            self.values[arm][-1].append(tuple(turn.values))
            self.preempted[arm] += turn.preempted

    def _affordable(self, launches: int, blocks: int, max_seconds: float) -> int:
        """Blocks a launch within the time, from the warm-ups of the first launch alone, before any kept run."""
        turn = sum(max(BLOCK_NS * 1e-9, (BLOCK_RUNS + 1) * w[0]["p50_ns"] * 1e-9) for w in self.warmed)
        return max(min(blocks, 3), min(blocks, int(max_seconds / launches / turn)))

    def comparison(self, names: Sequence[str], *, seed: int, seconds: float, synthetic: bool) -> Comparison:
        rng = np.random.default_rng(seed)
        values: list[Values] = [tuple(tuple(launch) for launch in arm) for arm in self.values]
        count = len(names)
        control = statistics.ratio_interval(values[-1], values[0], rng) if len(values) > count else None
        arms = []
        for arm in range(count):
            speedup = None
            if arm:
                interval = statistics.ratio_interval(values[arm], values[0], rng)
                speedup = statistics.speedup(statistics.widened(interval, control))
            arms.append(Arm(names[arm], statistics.timing(values[arm], rng), speedup, self._info(arm)))
        return Comparison(
            target=self.files.target.to_json(),
            arms=tuple(arms),
            control=statistics.speedup(control) if control else None,
            launches=len(values[0]),
            blocks=len(values[0][0]),
            seed=seed,
            seconds=seconds,
            synthetic=synthetic,
            host=host(self.runtime),
        )

    def _info(self, arm: int) -> dict[str, Any]:
        return {
            "providers": self.loaded[arm]["providers"],
            "placement": self.loaded[arm]["placement"],
            "preempted_runs": self.preempted[arm],
            "warmup_runs": [w["runs"] for w in self.warmed[arm]],
            "warmup_settled": all(w["settled"] for w in self.warmed[arm]),
        }
