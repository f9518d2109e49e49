"""Measures ONNX models on execution providers, with confidence bounds. The protocol is described in
docs/benchmarking.md.

    from runtime_bench import Bench, LatencyTable, Target, bench, check, compare, fingerprint, versions

Names are imported on first use, so that a worker process (which needs only numpy and onnxruntime) imports no more
than its own modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime_bench.comparison import compare as compare
    from runtime_bench.host import fingerprint as fingerprint
    from runtime_bench.host import versions as versions
    from runtime_bench.latency_table import LatencyTable as LatencyTable
    from runtime_bench.latency_table import OpKey as OpKey
    from runtime_bench.quick import Bench as Bench
    from runtime_bench.quick import Quick as Quick
    from runtime_bench.result import Arm as Arm
    from runtime_bench.result import Comparison as Comparison
    from runtime_bench.result import Speedup as Speedup
    from runtime_bench.result import Timing as Timing
    from runtime_bench.standalone import BenchResult as BenchResult
    from runtime_bench.standalone import bench as bench
    from runtime_bench.standalone import render as render
    from runtime_bench.target import Target as Target
    from runtime_bench.target import check as check

_HOMES = {
    "Arm": "result",
    "Bench": "quick",
    "BenchResult": "standalone",
    "Comparison": "result",
    "LatencyTable": "latency_table",
    "OpKey": "latency_table",
    "Quick": "quick",
    "Speedup": "result",
    "Target": "target",
    "Timing": "result",
    "bench": "standalone",
    "check": "target",
    "compare": "comparison",
    "fingerprint": "host",
    "render": "standalone",
    "versions": "host",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
