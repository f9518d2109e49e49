"""Ridge least squares with a bias, a centre, one-sided targets, and a ridge that held-out rows choose.

Shapes: columns X (groups, rows, D), targets T (groups, rows, O), weights (groups, O, D), biases (groups, O).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.stats.arrays import Array

_ROWS_AT_ONCE = 4096
RIDGES = (1e-3, 1e-2, 1e-1, 0.3, 1.0)


@dataclass(frozen=True)
class Solution:
    """Weights and bias, the ridge that was chosen, and the mean squared error over all rows and outputs before and
    after.
    """

    weights: Array
    bias: Array
    ridge: float


@dataclass
class _Sums:
    """Second moments of columns and targets about their means, float64, divided by the number of rows."""

    count: int
    mean_x: Array
    mean_t: Array
    xx: Array
    tx: Array
    tt: Array

    @staticmethod
    def of(x: Array, t: Array, *, intercept: bool, weights: Array | None = None) -> _Sums:
        """``weights``: one a row, of mean 1; None for equal ones."""
        count = max(x.shape[1], 1)
        if weights is not None:
            root = np.sqrt(weights).astype(x.dtype)[None, :, None]
            weighed_x, weighed_t = x * root, t * root
            mean_x, mean_t = (np.einsum("gnd,n->gd", part, weights, optimize=True) / count for part in (x, t))
        else:
            weighed_x, weighed_t = x, t
            mean_x, mean_t = x.mean(1, dtype=np.float64), t.mean(1, dtype=np.float64)
        if not intercept:
            mean_x, mean_t = np.zeros_like(mean_x), np.zeros_like(mean_t)
        xx = _product(weighed_x, weighed_x) / count - mean_x[:, :, None] * mean_x[:, None, :]
        tx = _product(weighed_t, weighed_x) / count - mean_t[:, :, None] * mean_x[:, None, :]
        tt = np.square(weighed_t, dtype=np.float64).mean(1) - np.square(mean_t)
        return _Sums(count, mean_x, mean_t, xx, tx, tt)

    @staticmethod
    def joined(one: _Sums, other: _Sums) -> _Sums:
        """The sums over the rows of both."""
        count = one.count + other.count
        a, b = one.count / count, other.count / count
        mean_x, mean_t = a * one.mean_x + b * other.mean_x, a * one.mean_t + b * other.mean_t
        apart_x, apart_t = one.mean_x - other.mean_x, one.mean_t - other.mean_t
        between = a * b
        xx = a * one.xx + b * other.xx + between * apart_x[:, :, None] * apart_x[:, None, :]
        tx = a * one.tx + b * other.tx + between * apart_t[:, :, None] * apart_x[:, None, :]
        tt = a * one.tt + b * other.tt + between * np.square(apart_t)
        return _Sums(count, mean_x, mean_t, xx, tx, tt)

    @staticmethod
    def moved(old: _Sums, x: Array, t: Array, *, intercept: bool, weights: Array | None) -> _Sums:
        """The sums for other targets on the same columns."""
        heavy = t if weights is None else t * weights.astype(t.dtype)[None, :, None]
        mean_t = heavy.mean(1, dtype=np.float64) if intercept else np.zeros_like(old.mean_t)
        tx = _product(heavy, x) / old.count - mean_t[:, :, None] * old.mean_x[:, None, :]
        return _Sums(old.count, old.mean_x, mean_t, old.xx, tx, old.tt)

    def error(self, weights: Array) -> float:
        """Mean squared error of these weights with the best bias, summed over outputs."""
        fitted = np.einsum("god,gde,goe->", weights, self.xx, weights, optimize=True)
        return float(self.tt.sum() - 2 * (weights * self.tx).sum() + fitted)

    def solve(self, centre: Array, ridge: float) -> Array:
        diagonal = np.einsum("gdd->gd", self.xx).mean(1)
        # variances are differences of float32 products: below this they are noise, and may be negative
        noise = 1e-6 * (np.square(self.mean_x).mean(1) + np.maximum(diagonal, 0))
        damping = np.maximum(ridge * diagonal, noise + 1e-30)[:, None, None] * np.eye(self.xx.shape[1])
        right = self.tx + centre @ damping
        solved: Array = np.linalg.solve(self.xx + damping, right.swapaxes(1, 2)).swapaxes(1, 2)
        return solved


def _product(a: Array, b: Array) -> Array:
    """a' b by group, float32 blocks added in float64."""
    total = np.zeros((len(a), a.shape[2], b.shape[2]))
    for start in range(0, a.shape[1], _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        for group in range(len(a)):
            total[group] += a[group, start:stop].T @ b[group, start:stop]
    return total


def solve(
    x: Array,
    t: Array,
    centre: Array,
    *,
    intercept: bool = True,
    ridges: Sequence[float] = RIDGES,
    held_out: Array | None = None,
    project: Callable[[Array], Array] | None = None,
    rounds: int = 0,
    weights: Array | None = None,
) -> Solution:
    """Weights near ``centre`` that take the columns ``x`` to the targets ``t``.

    ``held_out``: boolean over rows; where given the ridge with the least error on these rows, fitted on the others,
    is taken, then everything is fitted again. ``project``: maps predictions (groups, rows, O) to the nearest
    acceptable targets, for targets that are sets (everything below zero is as good as zero before a ReLU); applied
    ``rounds`` times, each followed by a new fit.
    """
    ridge = float(ridges[0])
    heavy = None if weights is None else weights / weights.mean()
    if held_out is not None and len(ridges) > 1 and held_out.any() and not held_out.all():
        parts = [(rows, None if heavy is None else heavy[rows]) for rows in (~held_out, held_out)]
        fit, check = (_Sums.of(x[:, rows], t[:, rows], intercept=intercept, weights=part) for rows, part in parts)
        ridge = min(ridges, key=lambda value: check.error(fit.solve(centre, value)))
        sums = _Sums.joined(fit, check)
    else:
        sums = _Sums.of(x, t, intercept=intercept, weights=heavy)
    found = sums.solve(centre, ridge)
    bias = sums.mean_t - np.einsum("god,gd->go", found, sums.mean_x)
    for _ in range(rounds if project is not None else 0):
        assert project is not None
        wanted = project(predict(x, found, bias))
        sums = _Sums.moved(sums, x, wanted, intercept=intercept, weights=heavy)
        found = sums.solve(centre, ridge)
        bias = sums.mean_t - np.einsum("god,gd->go", found, sums.mean_x)
    return Solution(found, bias, ridge)


def predict(x: Array, weights: Array, bias: Array) -> Array:
    """(groups, rows, O) in the dtype of ``x``."""
    result: Array = x @ weights.swapaxes(1, 2).astype(x.dtype) + bias[:, None, :].astype(x.dtype)
    return result
