"""Bounds: right on data of known ratio, and never sure of a difference that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from runtime_bench import statistics
from runtime_bench.result import Values, verdict
from runtime_bench.statistics import Interval


def noisy(
    rng: np.random.Generator,
    *,
    launches: int = 6,
    blocks: int = 8,
    seconds: float = 1e-3,
    launch_sd: float = 0.01,
    burst_share: float = 0.1,
    burst: float = 0.15,
) -> np.ndarray:
    """Log block medians of one model on a busy machine: every launch has its own level, blocks drift (AR(1), 0.7), and
    a neighbour comes and goes (two states that last some blocks).
    """
    level = rng.normal(np.log(seconds), launch_sd, (launches, 1))
    drift = np.zeros((launches, blocks))
    busy = rng.random(launches) < burst_share
    x = rng.normal(0, 0.005, launches)
    for k in range(blocks):
        busy = np.where(rng.random(launches) < 0.6, busy, rng.random(launches) < burst_share)
        x = 0.7 * x + rng.normal(0, 0.004, launches)
        drift[:, k] = x + busy * burst * rng.uniform(0.5, 1.5, launches)
    return np.asarray(level + drift)


def as_values(logs: np.ndarray, runs: int = 3) -> Values:
    return tuple(tuple((float(np.exp(v)),) * runs for v in launch) for launch in logs)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0.90, 0.979, "FASTER"),
        (0.90, 0.980, "INCONCLUSIVE"),
        (1.021, 1.10, "SLOWER"),
        (1.020, 1.10, "INCONCLUSIVE"),
        (0.5, 2.0, "INCONCLUSIVE"),
        (0.0, float("inf"), "INCONCLUSIVE"),
    ],
)
def test_verdicts(lower: float, upper: float, expected: str) -> None:
    assert verdict(lower, upper) == expected


def test_the_mid_mean_ignores_a_quarter_on_either_side() -> None:
    assert statistics.mid_mean(np.array([1.0, 2, 3, 4, 5, 6, 1e9, -1e9])) == pytest.approx(3.5)
    assert statistics.mid_mean(np.array([7.0])) == 7


@pytest.mark.parametrize("ratio", [0.4, 0.9, 1.0, 1.3])
def test_a_known_ratio_is_found(rng: np.random.Generator, ratio: float) -> None:
    old = noisy(rng, launch_sd=0.002, burst_share=0.05)
    new = noisy(rng, launch_sd=0.002, burst_share=0.05) + np.log(ratio)
    found = statistics.speedup(statistics.ratio_interval(as_values(new), as_values(old), rng))
    assert found.ratio == pytest.approx(ratio, rel=0.02)
    assert found.lower95 < found.ratio < found.upper95
    assert found.verdict == {0.4: "FASTER", 0.9: "FASTER", 1.0: "INCONCLUSIVE", 1.3: "SLOWER"}[ratio]


def test_bounds_hold_as_often_as_they_say(rng: np.random.Generator) -> None:
    """One-sided 95 % with five launches only, where the plain percentile bootstrap covers about 85 %."""
    tables = [rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.005, (5, 8)) for _ in range(400)]
    intervals = [statistics.bootstrap(t, rng, 800) for t in tables]
    below = np.mean([i.upper >= 0 for i in intervals])
    above = np.mean([i.lower <= 0 for i in intervals])
    assert 0.92 <= below <= 0.985
    assert 0.92 <= above <= 0.985


def test_equal_models_on_a_busy_machine_are_never_told_apart(rng: np.random.Generator) -> None:
    sure = 0
    for _ in range(300):
        base, control, new = (noisy(rng) for _ in range(3))
        interval = statistics.widened(
            statistics.bootstrap(new - base, rng, 800), statistics.bootstrap(control - base, rng, 800)
        )
        sure += statistics.speedup(interval).verdict != "INCONCLUSIVE"
    assert sure == 0


def test_even_an_absurdly_noisy_machine_seldom_misleads(rng: np.random.Generator) -> None:
    sure = 0
    for _ in range(300):
        base, control, new = (noisy(rng, launch_sd=0.05, burst_share=0.4, burst=0.3) for _ in range(3))
        interval = statistics.widened(
            statistics.bootstrap(new - base, rng, 800), statistics.bootstrap(control - base, rng, 800)
        )
        sure += statistics.speedup(interval).verdict != "INCONCLUSIVE"
    assert sure <= 15


def test_a_real_speedup_is_seen_through_the_noise(rng: np.random.Generator) -> None:
    seen = 0
    for _ in range(100):
        base, control, new = (noisy(rng) for _ in range(3))
        interval = statistics.widened(
            statistics.bootstrap(new + np.log(0.85) - base, rng, 800), statistics.bootstrap(control - base, rng, 800)
        )
        seen += statistics.speedup(interval).verdict == "FASTER"
    assert seen >= 95


def test_noise_that_hits_both_models_of_a_block_cancels(rng: np.random.Generator) -> None:
    weather = rng.normal(0, 0.5, (6, 8))
    interval = statistics.bootstrap((noisy(rng, burst_share=0) + weather) - (noisy(rng, burst_share=0) + weather), rng)
    assert interval.upper - interval.lower < 0.1


def test_the_control_widens_and_never_narrows() -> None:
    tight = Interval(-0.05, -0.055, -0.045)
    assert statistics.widened(tight, None) == tight
    calm = statistics.widened(tight, Interval(0.0, -0.001, 0.001))
    assert (calm.lower, calm.upper) == (-0.055, -0.045)
    restless = statistics.widened(tight, Interval(0.0, -0.03, 0.02))
    assert (restless.lower, restless.upper) == pytest.approx((-0.08, -0.02))
    biased = statistics.widened(tight, Interval(0.03, 0.02, 0.04))
    assert (biased.lower, biased.upper) == pytest.approx((-0.08, -0.02))


def test_too_little_data_is_never_sure(rng: np.random.Generator) -> None:
    one = statistics.bootstrap(np.array([[-3.0]]), rng)
    found = statistics.speedup(one)
    assert found.verdict == "INCONCLUSIVE"
    assert found.to_json()["upper95"] is None and found.to_json()["lower95"] == 0.0


def test_one_launch_speaks_through_its_blocks(rng: np.random.Generator) -> None:
    interval = statistics.bootstrap(np.log(0.5) + rng.normal(0, 0.01, (1, 8)), rng)
    assert np.exp(interval.upper) == pytest.approx(0.5, rel=0.05)
    assert interval.lower < interval.estimate < interval.upper


def test_seeds_repeat(rng: np.random.Generator) -> None:
    table = rng.normal(0, 1, (6, 8))
    bounds = [statistics.bootstrap(table, np.random.default_rng(5)) for _ in range(2)]
    assert bounds[0] == bounds[1]


def test_percentiles_and_the_bound_of_the_p50(rng: np.random.Generator) -> None:
    values = tuple(tuple(tuple(rng.gamma(200, 1e-5, 20) * level) for _ in range(8)) for level in rng.normal(1, 0.01, 6))
    timing = statistics.timing(values, rng)
    raw = np.array(values).ravel()
    assert timing.p50_ms == pytest.approx(np.median(raw) * 1e3)
    assert timing.p50_ms < timing.p90_ms < timing.p99_ms
    assert timing.p50_ms < timing.p50_upper95_ms < timing.p50_ms * 1.05
    assert timing.meets(timing.p50_upper95_ms) and not timing.meets(timing.p50_ms)
    stored = timing.to_json()
    assert stored["n"] == len(stored["raw_s"]) == 960
    assert stored["blocks"] == [[20] * 8] * 6


def test_standard_error_of_a_quick_look(rng: np.random.Generator) -> None:
    logs = rng.normal(0, 0.02, (200, 16))
    errors = [statistics.standard_error(row, rng) for row in logs]
    true = statistics.mid_mean(logs).std()
    assert np.median(errors) == pytest.approx(true, rel=0.35)
    assert statistics.standard_error([0.1], rng) == float("inf")
