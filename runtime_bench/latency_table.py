"""Latencies of single operators, measured once and kept on disk.

The speed of a machine drifts between sessions, so a stored value is the ratio to a reference operator that was measured
next to it, and is multiplied by what the reference takes now.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from onnxprune.errors import FileSystemError, ProviderError
from runtime_bench.host import fingerprint
from runtime_bench.quick import PROBE_NS, Bench
from runtime_bench.reference import reference_model

Key = TypeVar("Key")
"""Anything hashable whose str() identifies an operator: an OpKey, or text."""

SCHEMA = 1
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
    """Seconds of operators on the target of `bench`, from the cache or measured now.

    cache_dir: folder of the cache, `$XDG_CACHE_HOME/onnxprune` by default; file: one named file instead of it.
    A cache that cannot be read is ignored with a warning; one that cannot be written raises FileSystemError for `file`
    and is a warning otherwise.
    """

    def __init__(self, bench: Bench, *, cache_dir: Path | str | None = None, file: Path | str | None = None) -> None:
        self._bench = bench
        self.scope = _scope(bench)
        self._named = file is not None
        self.path = Path(file) if file is not None else Path(cache_dir or default_cache()) / _file_name(self.scope)
        self._ratios = read(self.path, self.scope)
        self._reference: float | None = None
        self.failed: set[str] = set()
        self.measured = 0

    def __len__(self) -> int:
        return len(self._ratios)

    @property
    def reference_s(self) -> float:
        """Seconds of the reference operator in this session."""
        if self._reference is None:
            self._reference = median(self._look() for _ in range(5))
        return self._reference

    def lookup(self, keys: Iterable[Key], build: Callable[[Key], bytes]) -> dict[Key, float]:
        """Seconds by key. What is not stored under `str(key)` is built with `build` (a serialized ONNX model), measured
        in one batch and stored. Keys whose model cannot be run are left out and added to `failed`.
        """
        wanted = dict.fromkeys(keys)
        missing = [k for k in wanted if str(k) not in self._ratios and str(k) not in self.failed]
        if missing:
            self._measure(missing, build)
        scale = self.reference_s if wanted else 0.0
        return {k: self._ratios[str(k)] * scale for k in wanted if str(k) in self._ratios}

    def _measure(self, keys: Sequence[Key], build: Callable[[Key], bytes]) -> None:
        fresh: dict[str, float] = {}
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
                if len(good) < VISITS:
                    self.failed.add(str(key))
                else:
                    fresh[str(key)] = min(good) / local
        self.measured += len(fresh)
        self._ratios.update(fresh)
        self._store(fresh)

    def _look(self) -> float:
        found = self._bench.measure_many([reference_model()], min_ns=2 * PROBE_NS)[0]
        if found is None:
            raise ProviderError(f"the reference operator does not run on {self._bench.target.alias}")
        return found

    def _store(self, fresh: Mapping[str, float]) -> None:
        try:
            merge(self.path, self.scope, fresh)
        except OSError as error:
            text = f"cannot write the latency cache {self.path}: {error.strerror or error}"
            if self._named:
                raise FileSystemError(text) from error
            warnings.warn(text, stacklevel=4)


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/onnxprune`, or `~/.cache/onnxprune`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base if base and Path(base).is_absolute() else Path.home() / ".cache", "onnxprune")


def _scope(bench: Bench) -> dict[str, Any]:
    """What every entry of a file has in common: the target but for its shapes, the host, the runtime."""
    target = bench.target.to_json()
    runtime = str(bench.hello()["onnxruntime"])
    return {
        "provider": target["provider"],
        "options": target["options"],
        "threads": target["threads"],
        "config": target["config"],
        "host": fingerprint(runtime),
        "onnxruntime": runtime,
    }


def _file_name(scope: Mapping[str, Any]) -> str:
    digest = sha256(json.dumps(scope, sort_keys=True).encode()).hexdigest()[:16]
    return f"latency-{digest}.json"


def read(path: Path, scope: Mapping[str, Any]) -> dict[str, float]:
    """Ratios stored in a cache file; none when it is absent. Anything else that is no cache of this scope is ignored
    with a warning.
    """
    try:
        stored = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        return _ignored(path, str(error).split("\n")[0][:120])
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA or not isinstance(stored.get("ratios"), dict):
        return _ignored(path, "it is no latency cache of this version")
    if stored.get("scope") != scope:
        return _ignored(path, "it was measured on another host, runtime or target")
    ratios = stored["ratios"]
    return {k: float(v) for k, v in ratios.items() if isinstance(v, (int, float)) and 0 < v < float("inf")}


def _ignored(path: Path, reason: str) -> dict[str, float]:
    warnings.warn(f"latency cache {path} is ignored: {reason}", stacklevel=4)
    return {}


def merge(path: Path, scope: Mapping[str, Any], fresh: Mapping[str, float]) -> None:
    """Add entries to a cache file, atomically and safely beside other processes that do the same. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when it was read first
        ratios = {**read(path, scope), **fresh}
        text = json.dumps({"schema": SCHEMA, "scope": scope, "ratios": dict(sorted(ratios.items()))}, indent=1)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as stream:
            temporary = Path(stream.name)
            try:
                stream.write(text + "\n")
                stream.flush()
                os.fsync(stream.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclusive lock beside the file; the lock file stays, for removing it would let two writers in."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
