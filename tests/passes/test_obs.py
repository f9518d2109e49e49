from __future__ import annotations

import time

import numpy as np
import pytest

from passes.structured_pruning.obs import Curve, Problem, absorbed, energy, removal_curve

RNG = np.random.default_rng(0)


def columns(size, n=400, rank=None):
    mix = RNG.standard_normal((size, rank or size)) @ RNG.standard_normal((rank or size, size)) / size
    return RNG.standard_normal((n, size)) @ mix


def problem(x, outputs, owner, weight=1.0):
    centred = x - x.mean(0)
    return Problem(centred.T @ centred / len(x), RNG.standard_normal((outputs, x.shape[1])), np.asarray(owner), weight)


def least_squares_error(p, x, kept):
    """Smallest relative error of the outputs, about their mean, that the columns ``kept`` can reach."""
    centred = x - x.mean(0)
    target = centred @ p.matrix.T
    fit = centred[:, kept] @ np.linalg.lstsq(centred[:, kept], target, rcond=None)[0]
    return np.square(target - fit).sum() / np.square(target).sum()


@pytest.mark.parametrize("outputs", [3, 40])
def test_cost_is_the_least_squares_error_of_every_nested_width(outputs):
    x = columns(12)
    owner = np.arange(12) // 3
    p = problem(x, outputs, owner)
    curve = removal_curve([p], 4, ridge=1e-12)
    for removed in range(4):
        kept = np.flatnonzero(~np.isin(owner, curve.order[:removed]))
        assert curve.error[removed] == pytest.approx(least_squares_error(p, x, kept), rel=1e-6, abs=1e-9)
    assert curve.error[4] == pytest.approx(1.0, rel=1e-6)
    assert curve.at(4) == 0 and curve.at(0) == curve.error[4]


def test_each_step_takes_the_cheapest_unit_left():
    x = columns(10)
    p = problem(x, 5, np.arange(10))
    curve = removal_curve([p], 10, ridge=1e-12)
    gone: list[int] = []
    for unit in curve.order[:-1]:
        left = [u for u in range(10) if u not in gone]
        errors = {u: least_squares_error(p, x, [v for v in left if v != u]) for u in left}
        assert unit == min(errors, key=errors.__getitem__)
        gone.append(unit)


def test_units_that_the_others_can_express_are_free():
    x = RNG.standard_normal((400, 6))
    x[:, 4] = x[:, 0] - 2 * x[:, 1]
    x[:, 5] = 3 * x[:, 2] + 7  # the constant goes into the bias
    curve = removal_curve([problem(x, 4, np.arange(6))], 6, ridge=1e-10)
    assert curve.error[2] < 1e-6 < 1e-3 < curve.error[3]


def test_several_contractions_add_their_relative_errors():
    x, z = columns(8), 1000 * columns(16)
    first, second = problem(x, 4, np.arange(8)), problem(z, 6, np.repeat(np.arange(8), 2))
    curve = removal_curve([first, second], 8, ridge=1e-12)
    kept = [u for u in range(8) if u not in curve.order[:3]]
    expected = least_squares_error(first, x, kept) + least_squares_error(
        second, z, [2 * u + k for u in kept for k in (0, 1)]
    )
    assert curve.error[3] == pytest.approx(expected, rel=1e-6)
    assert curve.error[8] == pytest.approx(2.0, rel=1e-6)
    doubled = removal_curve([Problem(first.covariance, first.matrix, first.owner, 2.0), second], 8, ridge=1e-12)
    assert doubled.error[8] == pytest.approx(3.0, rel=1e-6)


def test_columns_that_no_unit_owns_stay_and_help():
    x = columns(6)
    x[:, 0] = x[:, 5]
    curve = removal_curve([problem(x, 4, [0, 1, 2, 3, 4, -1])], 5, ridge=1e-10)
    assert curve.order[0] == 0 and curve.error[1] < 1e-6


def test_units_with_nothing_in_a_contraction_cost_nothing_there():
    x = columns(4)
    curve = removal_curve([problem(x, 4, [0, 1, 3, 3])], 4, ridge=1e-10)
    assert curve.order[0] == 2 and curve.error[1] == 0


def test_batches_are_nearly_as_good_as_single_removal(monkeypatch):
    import passes.structured_pruning.obs as obs

    x = columns(200, n=2000, rank=120)
    p = problem(x, 50, np.arange(200))
    batched = removal_curve([p], 200)
    monkeypatch.setattr(obs, "_ONE_AT_A_TIME", 1000)
    single = removal_curve([p], 200)
    assert sorted(batched.order) == list(range(200))
    for width in (20, 50, 100, 150):
        assert batched.at(width) <= 1.05 * single.at(width) + 1e-9


def test_a_group_of_1500_takes_seconds():
    size = 1536
    x = RNG.standard_normal((3000, size)).astype(np.float32)
    p = Problem((x.T @ x).astype(np.float64) / len(x), RNG.standard_normal((384, size)), np.arange(size))
    start = time.perf_counter()
    curve = removal_curve([p], size)
    assert time.perf_counter() - start < 20
    assert (np.diff(curve.error) >= 0).all() and len(curve.order) == size


def test_absorbed_weights_reach_the_least_squares_error():
    x = columns(9)
    p = problem(x, 4, np.arange(9))
    kept = np.array([0, 2, 3, 6, 8])
    weights = absorbed(p.covariance, p.matrix, kept, ridge=1e-12)
    centred = x - x.mean(0)
    error = np.square(centred @ p.matrix.T - centred[:, kept] @ weights.T).sum() / np.square(centred @ p.matrix.T).sum()
    assert error == pytest.approx(least_squares_error(p, x, kept), rel=1e-6)


def test_energy_is_the_variance_of_the_outputs():
    x = columns(5)
    p = problem(x, 3, np.arange(5))
    assert energy(p) == pytest.approx((x @ p.matrix.T).var(0).sum())


def test_curve_reads_widths_from_the_kept_side():
    curve = Curve(np.array([1, 0]), np.array([0.0, 0.25, 1.0]))
    assert [curve.at(width) for width in (2, 1, 0)] == [0.0, 0.25, 1.0]
