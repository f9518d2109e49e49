"""Latencies of single operators, measured once and kept on disk.

The speed of a machine drifts between sessions, so a stored value is the ratio to a reference operator that was measured
next to it, and is multiplied by what the reference takes now; in a file that the user names, by what it took when the
file was begun, so that the same file gives the same seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from onnxprune.errors import ProviderError
from runtime_bench.host import fingerprint
from runtime_bench.quick import PROBE_NS, Bench
from runtime_bench.reference import reference_model
from runtime_bench.table_file import SCHEMA, TableFile

Key = TypeVar("Key")
"""Anything hashable whose str() identifies an operator: an OpKey, or text."""

CHUNK = 16
"""Models between two looks at the reference."""
VISITS = 2
VISIT_NS = 1_500_000
"""Every operator is visited twice, a chunk apart, and the lesser figure counts: a burst of noise outlasts one visit."""


@dataclass(frozen=True)
class OpKey:
    """What the latency of an operator depends on, beside the target. `op` names it with what is fused into it.

    spatial: input extents without batch and channels. stride, kernel: one figure a spatial axis.
    extra: anything else that matters for this operator, in one form (dilations, sequence length, ...).
    """

    op: str
    cin: int
    cout: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    spatial: tuple[int, ...] = ()
    groups: int = 1
    precision: str = "fp32"
    batch: int = 1
    extra: str = ""

    def __str__(self) -> str:
        def joined(values: Sequence[int]) -> str:
            return "x".join(map(str, values)) or "-"

        sizes = f"k={joined(self.kernel)} s={joined(self.stride)} i={joined(self.spatial)}"
        text = f"{self.op} {self.cin}->{self.cout} {sizes} g={self.groups} n={self.batch} {self.precision}"
        return f"{text} {self.extra}" if self.extra else text


class LatencyTable:
    """Seconds of operators on the target of `bench`, from a file or measured now.

    cache_dir: folder of the cache, `$XDG_CACHE_HOME/onnxprune` by default; file: one named file instead of it, which
    serves any host and every target (see table_file for what happens where a file cannot be read or written).
    """

    def __init__(self, bench: Bench, *, cache_dir: Path | str | None = None, file: Path | str | None = None) -> None:
        self._bench = bench
        target, origin = scope(bench)
        path = Path(file) if file is not None else Path(cache_dir or default_cache()) / _file_name(target, origin)
        self.file = TableFile(path, target, origin, named=file is not None)
        self._reference: float | None = None
        self.failed: set[str] = set()
        self.measured = 0

    def __len__(self) -> int:
        return len(self.file.section.ratios)

    @property
    def reference_s(self) -> float:
        """Seconds of the reference operator: in this session, or as a named file has it."""
        if self._reference is None:
            self._reference = self.file.section.reference_s
        if self._reference is None:
            self._reference = median(self._look() for _ in range(5))
            if self.file.named:
                self.file.add(reference_s=self._reference)
                self._reference = self.file.section.reference_s or self._reference
        return self._reference

    def lookup(self, keys: Iterable[Key], build: Callable[[Key], bytes]) -> dict[Key, float]:
        """Seconds by key. What is not stored under `str(key)` is built with `build` (a serialized ONNX model), measured
        in one batch and stored. Keys whose model cannot be run are left out and added to `failed`.
        """
        wanted = dict.fromkeys(keys)
        missing = [k for k in wanted if str(k) not in self.file.section.ratios and str(k) not in self.failed]
        if missing:
            self._measure(missing, build)
        scale = self.reference_s if wanted else 0.0
        found = {k: self.file.section.ratios.get(str(k)) for k in wanted}
        self.failed.update(str(k) for k, ratio in found.items() if ratio is None)
        return {k: ratio * scale for k, ratio in found.items() if ratio is not None}

    def _measure(self, keys: Sequence[Key], build: Callable[[Key], bytes]) -> None:
        fresh: dict[str, float | None] = {}
        before = self._look()
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            models = [build(k) for k in chunk]
            visits = [self._bench.measure_many(models, min_ns=VISIT_NS) for _ in range(VISITS)]
            after = self._look()
            local = min(before, after)
            before = after
            for key, seconds in zip(chunk, zip(*visits, strict=True), strict=True):
                good = [s for s in seconds if s is not None]
                fresh[str(key)] = min(good) / local if len(good) == VISITS else None
        failed = {key for key, ratio in fresh.items() if ratio is None}
        self.measured += len(fresh) - len(failed)
        self.failed |= failed
        # a cache forgets failures: the next session tries again; a named file reproduces them
        kept = fresh if self.file.named else {key: ratio for key, ratio in fresh.items() if ratio is not None}
        self.file.add(ratios=kept)

    def _look(self) -> float:
        found = self._bench.measure_many([reference_model()], min_ns=2 * PROBE_NS)[0]
        if found is None:
            raise ProviderError(f"the reference operator does not run on {self._bench.target.alias}")
        return found


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/onnxprune`, or `~/.cache/onnxprune`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base if base and Path(base).is_absolute() else Path.home() / ".cache", "onnxprune")


def scope(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
    """What every entry of a section has in common: the target but for its shapes; and the host and the runtime."""
    target = bench.target.to_json()
    runtime = str(bench.hello()["onnxruntime"])
    kept = {name: target[name] for name in ("provider", "options", "threads", "config")}
    return kept, {"host": fingerprint(runtime), "onnxruntime": runtime}


def _file_name(target: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    digest = sha256(json.dumps([SCHEMA, target, origin], sort_keys=True).encode()).hexdigest()[:16]
    return f"latency-{digest}.json"
