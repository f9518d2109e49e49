"""`onnxprune bench A [B ...]`: measure models on every target and say which is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime_bench.comparison import BLOCKS, LAUNCHES, Progress, compare
from runtime_bench.feeding import Feeding, ModelLike
from runtime_bench.host import versions
from runtime_bench.result import Arm, Comparison, Speedup
from runtime_bench.target import Target


@dataclass(frozen=True)
class BenchResult:
    """A comparison per target, in the order asked for."""

    comparisons: tuple[Comparison, ...]

    @property
    def faster_everywhere(self) -> bool:
        """Whether the last model is FASTER than the first on every target (each at 95 %: intersection-union)."""
        return all(len(c.arms) > 1 and c.speedup().verdict == "FASTER" for c in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """For `--format json` and reports."""
        return {
            "schema_version": 1,
            "comparisons": [c.to_json() for c in self.comparisons],
            "versions": versions(),
        }


def bench(
    models: Sequence[ModelLike],
    targets: Sequence[Target],
    feeds: Feeding = None,
    *,
    launches: int = LAUNCHES,
    blocks: int = BLOCKS,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure the models on each target in turn. What the command `onnxprune bench` calls:

        result = bench([a, b], [Target("cpu", threads=1)], arrays, seed=0)
        click.echo(render(result))        # or json.dumps(result.to_json())

    `feeds` are arrays by input name as in an npz of calibration data, or None. Raises as `compare` does: UsageError
    for a missing file or open shapes, ModelError, DataError, ProviderError, LimitError.
    """
    return BenchResult(
        tuple(
            compare(models, target, feeds, launches=launches, blocks=blocks, seed=seed, progress=progress)
            for target in targets
        )
    )


def render(result: BenchResult) -> str:
    """Plain text: a line a model with its percentiles, then the verdict against the first one."""
    return "\n".join(line for comparison in result.comparisons for line in _lines(comparison))


def _lines(comparison: Comparison) -> list[str]:
    target = comparison.target
    plural = "s" if target["threads"] != 1 else ""
    inputs = ", made-up inputs" if comparison.synthetic else ""
    lines = [f"{target['provider']}, {target['threads']} thread{plural}, batch {target['batch']}{inputs}"]
    width = max(len(arm.name) for arm in comparison.arms)
    for arm in comparison.arms:
        t = arm.timing
        lines.append(
            f"  {arm.name:<{width}}  P50 {t.p50_ms:.4g} ms (<= {t.p50_upper95_ms:.4g} at 95 %)  "
            f"P90 {t.p90_ms:.4g}  P99 {t.p99_ms:.4g}  n={t.raw.size}"
        )
    lines += [_against(arm, comparison.baseline.name) for arm in comparison.arms[1:]]
    if comparison.control:
        c = comparison.control
        lines.append(
            f"  control (baseline against itself): {c.ratio:.4f}x, 95 % bounds {c.lower95:.4f} and {c.upper95:.4f}"
        )
    return lines + [f"  warning: {text}" for text in _doubts(comparison)]


def _doubts(comparison: Comparison) -> list[str]:
    """What should make a reader trust the figures less."""
    doubts = [f"{a.name} never ran evenly while warming up" for a in comparison.arms if not a.info["warmup_settled"]]
    control = comparison.control
    if control and not control.lower95 <= 1 <= control.upper95:
        doubts.append("the control differs from 1: the machine is busy, and the bounds are widened by as much")
    return doubts


def _against(arm: Arm, baseline: str) -> str:
    s = arm.speedup
    if s is None:
        return f"  {arm.name}"
    return f"  {arm.name} / {baseline}: {_bounds(s)}: {s.verdict}"


def _bounds(s: Speedup) -> str:
    return f"{s.ratio:.4f}x, one-sided 95 % bounds {s.lower95:.4f} and {s.upper95:.4f}"
