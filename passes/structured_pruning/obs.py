"""Structured optimal brain surgeon: one pass removes every unit of a group, the cheapest first, and prices every width.

A unit owns columns in each contraction that reads its group. With H the covariance of a contraction's columns and W its
matrix, removing the columns S costs tr(W_S (H^-1_SS)^-1 W_S'), the least squared change of the outputs that the
remaining columns can reach; they reach it by W -= W_S (H^-1_SS)^-1 H^-1_S: (Hassibi & Stork 1993; for structures
Kurtic et al. 2022, arXiv 2203.07259). H is taken about the mean because the bias absorbs the mean. The costs of a
unit in several contractions are added after each is divided by its own output energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.stats.arrays import Array

_ONE_AT_A_TIME = 96  # groups with fewer units left remove them singly; larger ones in small batches
_BATCHES = 48  # a batch is this part of the units left
_POOL = 4  # the batch is chosen greedily, exactly, among this many times as many of the cheapest units


@dataclass(frozen=True)
class Curve:
    """Units in the order of removal, and what each width costs.

    ``order``: unit indices, cheapest first. ``error[k]``: cumulative error after removing the first k units, relative
    to the energy of the outputs (k = 0 ... number of units; for several contractions the sum over them).
    """

    order: Array
    error: Array

    def at(self, width: int) -> float:
        """Error when ``width`` units are kept."""
        return float(self.error[len(self.order) - width])


@dataclass
class Problem:
    """One contraction as seen by a group: ``covariance`` (D, D) float64, ``matrix`` (O, D), and the unit that owns
    each column (-1: none).
    """

    covariance: Array
    matrix: Array
    owner: Array
    weight: float = 1.0


def energy(problem: Problem) -> float:
    """Mean squared size of the outputs about their mean, summed over outputs."""
    return float(np.einsum("od,de,oe->", problem.matrix, problem.covariance, problem.matrix, optimize=True))


class _State:
    """A problem while units leave it: the inverse covariance and the weights of the columns that are left, grouped by
    unit.
    """

    def __init__(self, problem: Problem, units: int, ridge: float) -> None:
        covariance, matrix = problem.covariance, np.array(problem.matrix, np.float64)
        self.scale = problem.weight / max(energy(problem), 1e-30)
        if len(matrix) > matrix.shape[1]:  # only W'W matters
            matrix = np.asarray(np.linalg.qr(matrix, mode="r"))
        damped = covariance + np.eye(len(covariance)) * (ridge * max(float(np.diag(covariance).mean()), 1e-30))
        inverse = np.linalg.inv(damped)
        self.inverse, self.matrix = (inverse + inverse.T) / 2, matrix
        self.owned = [np.flatnonzero(problem.owner == unit) for unit in range(units)]
        self.sizes = np.array([len(columns) for columns in self.owned])

    def costs(self, units: Array) -> Array:
        """Cost of removing each of ``units`` alone."""
        found = np.zeros(len(units))
        for size in np.unique(self.sizes[units]):
            if size:
                places = np.flatnonzero(self.sizes[units] == size)
                found[places] = self._block_costs(np.stack([self.owned[units[place]] for place in places]))
        return found * self.scale

    def _block_costs(self, columns: Array) -> Array:
        weights = self.matrix[:, columns].transpose(1, 2, 0)  # (units, size, outputs)
        if columns.shape[1] == 1:
            single: Array = np.square(weights[:, 0]).sum(-1) / self.inverse[columns[:, 0], columns[:, 0]]
            return single
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
        squares = weights @ weights.transpose(0, 2, 1)
        costs: Array = np.trace(np.linalg.solve(blocks, squares), axis1=1, axis2=2)
        return costs

    def pool(self, units: Array) -> _State:
        """The same state seen only through the columns of ``units``."""
        small = object.__new__(_State)
        columns = np.concatenate([self.owned[unit] for unit in units])
        small.inverse, small.matrix, small.scale = (
            self.inverse[np.ix_(columns, columns)],
            self.matrix[:, columns],
            self.scale,
        )
        ends = np.cumsum(self.sizes[units])
        small.owned = [np.arange(end - size, end) for end, size in zip(ends, self.sizes[units], strict=True)]
        small.sizes = self.sizes[units]
        return small

    def remove(self, units: Array) -> None:
        """The survivors absorb ``units``."""
        gone = np.concatenate([self.owned[unit] for unit in units])
        if not len(gone):
            return
        reach = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone])
        self.matrix -= self.matrix[:, gone] @ reach
        self.inverse -= self.inverse[:, gone] @ reach
        self.matrix[:, gone] = 0
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        for unit in units:
            self.owned[unit] = np.zeros(0, np.int64)
            self.sizes[unit] = 0

    def shrink(self) -> None:
        """Forgets the columns that are gone, once they are many."""
        live = np.flatnonzero(np.diag(self.inverse) > 0)
        if len(live) > 0.75 * len(self.inverse):
            return
        place = np.cumsum(np.diag(self.inverse) > 0) - 1
        self.inverse, self.matrix = self.inverse[np.ix_(live, live)], self.matrix[:, live]
        self.owned = [place[columns] for columns in self.owned]


def removal_curve(problems: Sequence[Problem], units: int, ridge: float = 1e-3) -> Curve:
    """Removes all ``units`` of a group from all its ``problems``, the cheapest first. ``ridge``: relative to the mean
    variance of a column.

    Groups of more than 96 units are emptied in batches of 1/48 of what is left; within a batch the choice is exact
    among the cheapest few, and the cost of a batch is exact whatever its size.
    """
    states = [_State(problem, units, ridge) for problem in problems if problem.covariance.size]
    alive = np.arange(units)
    order: list[int] = []
    costs: list[float] = []
    while len(alive):
        price = sum((state.costs(alive) for state in states), np.zeros(len(alive)))
        batch = 1 if len(alive) <= _ONE_AT_A_TIME else max(1, len(alive) // _BATCHES)
        if batch == 1:
            place = int(price.argmin())
            chosen, paid = [int(alive[place])], [float(price[place])]
        else:
            pool = alive[np.sort(np.argsort(price, kind="stable")[: batch * _POOL])]
            chosen, paid = _greedy(states, pool, batch)
        for state in states:
            state.remove(np.array(chosen))
            state.shrink()
        order += chosen
        costs += paid
        alive = np.setdiff1d(alive, chosen)
    return Curve(np.array(order, np.int64), np.concatenate([[0.0], np.cumsum(np.maximum(costs, 0.0))]))


def _greedy(states: Sequence[_State], pool: Array, batch: int) -> tuple[list[int], list[float]]:
    """``batch`` units out of ``pool`` one at a time, with their costs."""
    small = [state.pool(pool) for state in states]
    left = np.arange(len(pool))
    chosen: list[int] = []
    paid: list[float] = []
    for _ in range(batch):
        price = sum((state.costs(left) for state in small), np.zeros(len(left)))
        place = int(price.argmin())
        chosen.append(int(pool[left[place]]))
        paid.append(float(price[place]))
        for state in small:
            state.remove(left[[place]])
        left = np.delete(left, place)
    return chosen, paid


def absorbed(covariance: Array, matrix: Array, kept: Array, ridge: float = 1e-3) -> Array:
    """The weights (O, kept columns) that replace ``matrix`` (O, D) best when only the columns ``kept`` are left: W
    H_:K (H_KK)^-1.
    """
    damping = np.eye(len(kept)) * (ridge * max(float(np.diag(covariance).mean()), 1e-30))
    inner = covariance[np.ix_(kept, kept)] + damping
    moved = matrix @ covariance[:, kept] + matrix[:, kept] @ damping
    solution: Array = np.linalg.solve(inner, moved.T).T
    return solution
