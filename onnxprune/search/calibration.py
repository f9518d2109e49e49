"""From the sum of a plan's table entries to the latency of the whole model: T = f(Σ table).

`f` goes through whole models measured in the same run, so that the cost of a session, of layout changes between
clusters, of caches, and the speed of the machine today fall out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLOSE_POINTS = 1.05
"""Sums within this factor of each other are one point of a calibration: what tells them apart is noise."""


@dataclass(frozen=True)
class Calibration:
    """Seconds of a whole model as a function of its sum of table entries: linear between the models that were measured,
    proportional beyond them. `knots`: (sum, seconds), both ascending; none: the sum itself.
    """

    knots: tuple[tuple[float, float], ...] = ()

    def seconds(self, total: float) -> float:
        """What the whole model takes when its table entries sum up to `total`."""
        return _along(total, self.knots)

    def budget(self, seconds: float) -> float:
        """The sum of table entries that fits into so many seconds of the whole model."""
        return _along(seconds, [(y, x) for x, y in self.knots])


def _along(x: float, knots: Sequence[tuple[float, float]]) -> float:
    if not knots:
        return x
    (low, at_low), (high, at_high) = knots[0], knots[-1]
    if not low < x < high:
        return x * (at_low / low if x <= low else at_high / high)
    return float(np.interp(x, [knot[0] for knot in knots], [knot[1] for knot in knots]))


def fit_calibration(table: Sequence[float], measured: Sequence[float]) -> Calibration:
    """Through every measured model; models that are close together, or that the table orders otherwise than the
    measurement, become one (their geometric mean).

    A line would not do: a model at full width takes more than its parts, since they find each other's data gone from
    the caches.
    """
    knots: list[list[tuple[float, float]]] = []
    for point in sorted((x, y) for x, y in zip(table, measured, strict=True) if x > 0):
        knots.append([point])
        while len(knots) > 1 and not _apart(_middle(knots[-2]), _middle(knots[-1])):
            knots[-2:] = [knots[-2] + knots[-1]]
    return Calibration(tuple(map(_middle, knots)))


def _apart(lower: tuple[float, float], upper: tuple[float, float]) -> bool:
    return upper[0] >= CLOSE_POINTS * lower[0] and upper[1] > lower[1]


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x, y = np.exp(np.mean(np.log(points), axis=0))
    return float(x), float(y)
