"""Short looks for the search: workers that stay, interleaved blocks of a few milliseconds, no fresh launches.

A quick ratio has a standard error but no bound worth a promise: it cannot see the differences between launches. What is
reported to users comes from `compare`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onnxprune.errors import ModelError, OnnxpruneError, ProviderError
from runtime_bench import scratch, statistics
from runtime_bench.client import STEP_SECONDS, Worker
from runtime_bench.comparison import interleaved
from runtime_bench.feeding import Feeding, Files, ModelLike
from runtime_bench.target import Target

QUICK_BLOCK_NS = 8_000_000
MIN_BLOCKS = 12
PROBE_NS = 5_000_000


@dataclass(frozen=True)
class Quick:
    """Latency of a model over the baseline's, from one short look. Seconds; `standard_error` is that of log(ratio)."""

    ratio: float
    standard_error: float
    p50_s: float
    baseline_p50_s: float


class Bench:
    """Holds workers for repeated looks at models on one target. A context manager.

    feeds: inputs for every model (see feeding.Feeding); made up when None.
    max_workers: models kept loaded at a time, the least recently used leaves first.
    timeout: seconds for one request to a worker.

    Every method raises ModelError, DataError, ProviderError or LimitError when a model cannot be measured, and stays
    usable after it.
    """

    def __init__(
        self,
        target: Target,
        feeds: Feeding = None,
        *,
        seed: int = 0,
        max_workers: int = 4,
        timeout: float = STEP_SECONDS,
        max_memory: int | None = None,
    ) -> None:
        self.target = target
        self._timeout, self._max_workers, self._max_memory = timeout, max_workers, max_memory
        self._rng = np.random.default_rng(seed)
        self._folder = scratch.folder("onnxprune-bench-")
        self._files = Files(target, feeds, Path(self._folder.name))
        self._loaded: OrderedDict[tuple[Path, int, int], Worker] = OrderedDict()
        self._spare: list[Worker] = []
        self._described: dict[Path, dict[str, Any]] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every worker and remove temporary files."""
        for worker in [*self._loaded.values(), *self._spare]:
            worker.kill()
        self._loaded.clear()
        self._spare.clear()
        self._folder.cleanup()

    def hello(self) -> dict[str, Any]:
        """What the target's interpreter offers: version of onnxruntime, providers."""
        worker = self._free()
        self._spare.append(worker)
        return worker.hello

    def info(self, model: ModelLike, *, op_counts: bool = False) -> dict[str, Any]:
        """Inputs, outputs, providers and placement of a model; with `op_counts` also how often each "domain:Op" stands
        in the graph as the runtime optimised it (None where the provider cannot write it). com.microsoft.nchwc: are the
        blocked convolutions of the CPU.
        """
        path = self._files.model(model)
        worker = self._worker(path)
        found = dict(self._described[path])
        if op_counts:
            found["op_counts"] = _op_counts(worker, path, Path(self._folder.name, "optimized.onnx"))
        return found

    def quick(self, model: ModelLike, *, seconds: float = 0.15) -> float:
        """P50 in seconds of a model from about `seconds` of runs (at least 3)."""
        worker = self._worker(self._files.model(model))
        return float(np.median(worker.run(int(seconds * 1e9)).values))

    def quick_ratio(self, baseline: ModelLike, candidates: Sequence[ModelLike], *, seconds: float = 0.5) -> list[Quick]:
        """Each candidate against the baseline, interleaved in random order for about `seconds` in all, and for at least
        12 blocks. Keep `candidates` below `max_workers`, so that all of them stay loaded.
        """
        paths = [self._files.model(m) for m in (baseline, *candidates)]
        self._max_workers = max(self._max_workers, len(paths))
        for path in paths:
            self._worker(path)
        workers = [self._worker(path) for path in paths]
        values: list[list[list[float]]] = [[] for _ in paths]
        end = time.monotonic() + seconds
        for block in count():
            if block >= MIN_BLOCKS and time.monotonic() >= end:
                break
            order = [int(arm) for arm in self._rng.permutation(len(paths))]
            for arm, turn in interleaved(workers, order, QUICK_BLOCK_NS, 2, first=block).items():
                values[arm].append(turn.values)
        return [self._quick(arm, values[0]) for arm in values[1:]]

    def _quick(self, new: list[list[float]], old: list[list[float]]) -> Quick:
        medians = [np.log([np.median(turn) for turn in arm]) for arm in (new, old)]
        logs = medians[0] - medians[1]
        return Quick(
            ratio=float(np.exp(statistics.mid_mean(logs))),
            standard_error=statistics.standard_error(logs, self._rng),
            p50_s=float(np.median(np.concatenate(new))),
            baseline_p50_s=float(np.median(np.concatenate(old))),
        )

    def measure_many(self, models: Sequence[ModelLike], *, min_ns: int = PROBE_NS) -> list[float | None]:
        """Seconds of each of many small models, one after the other in one worker: least median of three short blocks
        that take `min_ns` together. Inputs are made up. None for a model that cannot be loaded or run, also when it
        takes the worker down (a fresh one goes on with the next model).
        """
        found: list[float | None] = []
        worker = self._free()
        for model in models:
            if not worker.alive:
                worker = self._free()
            path = self._files.model(model)
            try:
                found.append(worker.probe(path, min_ns))
            except OnnxpruneError:
                found.append(None)
            if path.parent == self._files.folder:
                path.unlink(missing_ok=True)  # hundreds of them would fill the temporary folder
        if worker.alive:
            self._spare.append(worker)
        return found

    def _free(self) -> Worker:
        """A worker without a model."""
        while self._spare:
            worker = self._spare.pop()
            if worker.alive:
                return worker
        return Worker(self.target, timeout=self._timeout, max_memory=self._max_memory)

    def _worker(self, path: Path) -> Worker:
        """The warm worker of a model; a file that changed counts as another model."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from error
        key = (path, stat.st_mtime_ns, stat.st_size)
        worker = self._loaded.pop(key, None)
        if worker is None or not worker.alive:
            worker = self._prepare(path)
        self._loaded[key] = worker
        return worker

    def _prepare(self, path: Path) -> Worker:
        self._make_room()
        worker = self._free()
        try:
            self._described[path] = worker.load(path)
            worker.feed(self._files.inputs(self._described[path]["inputs"]))
            worker.warm_up()
        except BaseException:
            worker.kill()  # a model that failed may have left the process in any state
            raise
        return worker

    def _make_room(self) -> None:
        while len(self._loaded) >= self._max_workers:
            _, worker = self._loaded.popitem(last=False)
            if worker.alive:
                worker.ask("unload")
                self._spare.append(worker)


def _op_counts(worker: Worker, model: Path, path: Path) -> dict[str, int] | None:
    import onnx

    if not worker.optimized(model, path):
        return None
    counts: dict[str, int] = {}
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except ValueError as error:
        raise ProviderError(f"the runtime wrote an optimised model that cannot be read: {error}") from error
    finally:
        path.unlink(missing_ok=True)
    for node in graph.node:
        name = f"{node.domain}:{node.op_type}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
