"""Bounds on latencies and ratios from blocks of runs in launches.

Runs next to each other share the state of the machine, and all runs of a launch share the memory layout of their
process, so neither is an independent sample. The unit of evidence is the launch: the hierarchical bootstrap draws
launches with replacement and the blocks within each without (the first strategy of Davison and Hinkley, Bootstrap
Methods and their Application, 1997, section 3.8: a launch already carries the noise of its blocks, and drawing those
again would count it twice). With few launches the percentile interval is too narrow; it is widened by sqrt(n / (n - 1))
and by the ratio of Student's t to the normal quantile (Hesterberg, What Teachers Should Know about the Bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime_bench.result import Speedup, Timing, Values, verdict

RESAMPLES = 4000
LEVEL = 0.95
_Z = 1.6448536269514722  # normal quantile of LEVEL


@dataclass(frozen=True)
class Interval:
    """Estimate and one-sided 95 % bounds of a logarithm."""

    estimate: float
    lower: float
    upper: float


def block_medians(values: Values) -> np.ndarray:
    """Logarithm of the median of every block, launches x blocks."""
    return np.log([[float(np.median(block)) for block in launch] for launch in values])


def mid_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis: a burst of noise in a quarter of the blocks leaves it alone."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def bootstrap(table: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> Interval:
    """Interval of the mean over launches of the mid-mean over blocks. `table` is launches x blocks.

    One launch can only speak for its own blocks, which are drawn then; a single block has infinite bounds.
    """
    launches, blocks = table.shape
    estimate = float(mid_mean(table).mean())
    if launches == 1 and blocks == 1:
        return Interval(estimate, -np.inf, np.inf)
    if launches > 1:
        draws = mid_mean(table)[rng.integers(launches, size=(resamples, launches))].mean(axis=-1)
    else:
        draws = mid_mean(table[0, rng.integers(blocks, size=(resamples, blocks))])
    low, high = np.quantile(draws, (1 - LEVEL, LEVEL))
    factor = _small_sample(launches if launches > 1 else blocks)
    down, up = max(0.0, estimate - low), max(0.0, high - estimate)
    return Interval(estimate, estimate - factor * down, estimate + factor * up)


def _small_sample(n: int) -> float:
    from scipy.special import stdtrit

    return float(np.sqrt(n / (n - 1)) * stdtrit(n - 1, LEVEL) / _Z)


def ratio_interval(new: Values, old: Values, rng: np.random.Generator) -> Interval:
    """Interval of log(new / old) from paired blocks."""
    return bootstrap(block_medians(new) - block_medians(old), rng)


def widened(interval: Interval, control: Interval | None) -> Interval:
    """`interval`, never narrower on either side than what the control (baseline against itself, truth 0) shows of this
    machine, and wider by as much as the control misses the truth.
    """
    if control is None:
        return interval
    reach = max(control.upper - control.estimate, control.estimate - control.lower)
    miss = max(0.0, control.lower, -control.upper)
    down = max(interval.estimate - interval.lower, reach) + miss
    up = max(interval.upper - interval.estimate, reach) + miss
    return Interval(interval.estimate, interval.estimate - down, interval.estimate + up)


def speedup(interval: Interval) -> Speedup:
    """From log ratios to ratios and a verdict."""
    with np.errstate(over="ignore"):
        lower, upper = float(np.exp(interval.lower)), float(np.exp(interval.upper))
    return Speedup(float(np.exp(interval.estimate)), lower, upper, verdict(lower, upper))


def timing(values: Values, rng: np.random.Generator) -> Timing:
    """Percentiles of all runs, and the upper bound of the P50 from the spread of block medians."""
    raw = np.array([v for launch in values for block in launch for v in block])
    p50, p90, p99 = (float(v) * 1e3 for v in np.quantile(raw, (0.5, 0.9, 0.99)))
    spread = bootstrap(block_medians(values), rng)
    with np.errstate(over="ignore"):
        bound = p50 * float(np.exp(spread.upper - spread.estimate))
    return Timing(p50, p90, p99, bound, values)


def standard_error(log_ratios: Sequence[float] | np.ndarray, rng: np.random.Generator, resamples: int = 400) -> float:
    """Standard error of the mid-mean of block log ratios of one launch; infinite for one block."""
    table = np.asarray(log_ratios, dtype=float)
    if table.size < 2:
        return float("inf")
    draws = mid_mean(table[rng.integers(table.size, size=(resamples, table.size))])
    return float(draws.std(ddof=1) * np.sqrt(table.size / (table.size - 1)))
