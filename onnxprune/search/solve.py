"""One integer programme: the widths and the depth with the least error whose predicted latency fits every provider.

Variables: a one-hot width `z[g, l]` a group; `d[k]` for the k-th branch of the drop order (a nested order: d[k+1] ≤
d[k]); for every term of the latency model a distribution `y` over the joint levels of the groups it touches, whose
marginals are bounded by `z` and whose mass is 1, or 0 where the term lies in a dropped branch. `y` may stay continuous:
with `z` and `d` integral its cheapest value is integral too.

The formulation of joint input and output widths follows HALP (arXiv 2110.10811, eq. 4) with pairs in place of its
grouped knapsack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
NODES = 20_000
"""Of branch and bound: the limit that decides how long a hard programme is worked on, the same on every machine."""
SAFETY_S = 120.0
"""Seconds after which the clock ends the solver all the same."""


@dataclass(frozen=True)
class WidthChoice:
    """The levels of one group: `widths` ascending (units kept), `error` of each (any unit, additive over groups), and
    the branch it lies in.
    """

    group: str
    widths: tuple[int, ...]
    error: tuple[float, ...]
    branch: int | None = None


@dataclass(frozen=True)
class LatencyTerm:
    """Seconds of one cluster of nodes, as an array over the levels of the one or two groups that it touches (0-d:
    constant).
    """

    groups: tuple[str, ...]
    seconds: Floats
    branch: int | None = None


@dataclass(frozen=True)
class Problem:
    """What to choose from. `branch_error[k]`: added error of dropping branch k after branches 0..k-1. `terms` and
    `budget`: one entry a provider.
    """

    choices: tuple[WidthChoice, ...]
    branch_error: tuple[float, ...]
    terms: tuple[tuple[LatencyTerm, ...], ...]
    budget: tuple[float, ...]


@dataclass(frozen=True)
class Solution:
    """Level index of every group, how many branches of the order are dropped, and the predicted error and seconds (per
    provider).
    """

    level: Mapping[str, int]
    dropped: int
    error: float
    seconds: tuple[float, ...]


@dataclass
class _Programme:
    """Rows and columns of the programme while it is put together."""

    cost: list[float] = field(default_factory=list)
    integral: list[int] = field(default_factory=list)
    rows: list[tuple[list[int], list[float], float, float]] = field(default_factory=list)

    def columns(self, cost: Sequence[float], integral: bool) -> range:
        start = len(self.cost)
        self.cost.extend(cost)
        self.integral.extend([int(integral)] * len(cost))
        return range(start, len(self.cost))

    def row(self, columns: Sequence[int], values: Sequence[float], low: float, high: float) -> None:
        self.rows.append((list(columns), list(values), low, high))

    def solve(self, gap: float, cut_off: Callable[[], None]) -> Floats | None:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        indptr = np.cumsum([0] + [len(row[0]) for row in self.rows])
        matrix = csr_array(
            (
                np.concatenate([row[1] for row in self.rows]).astype(np.float64),
                np.concatenate([row[0] for row in self.rows]).astype(np.int64),
                indptr,
            ),
            shape=(len(self.rows), len(self.cost)),
        )
        matrix.sum_duplicates()  # a width may occur in many terms of one budget; HiGHS refuses repeated entries
        constraint = LinearConstraint(matrix, [row[2] for row in self.rows], [row[3] for row in self.rows])
        answer = milp(
            np.asarray(self.cost),
            constraints=constraint,
            integrality=np.asarray(self.integral),
            bounds=Bounds(0, 1),
            options={"time_limit": SAFETY_S, "mip_rel_gap": gap, "node_limit": NODES},
        )
        if "ime limit" in str(answer.message):
            cut_off()
        return None if answer.x is None else np.asarray(answer.x)


def _marginals(programme: _Programme, z: Mapping[str, range], term: LatencyTerm, drop: range) -> range:
    """Adds the distribution of one term over its joint levels, and ties its marginals to the widths and its mass to the
    branch.
    """
    shape = term.seconds.shape
    y = programme.columns([0.0] * term.seconds.size, integral=False)
    index = np.arange(term.seconds.size).reshape(shape) + y.start
    for axis, group in enumerate(term.groups):
        for level, column in enumerate(z[group]):
            part = np.take(index, level, axis=axis).ravel().tolist()
            programme.row([*part, column], [1.0] * len(part) + [-1.0], -np.inf, 0.0)
    dropped = [] if term.branch is None else [drop[term.branch]]
    programme.row([*y, *dropped], [1.0] * (len(y) + len(dropped)), 1.0, 1.0)
    return y


def _add_latency(
    programme: _Programme, z: Mapping[str, range], drop: range, terms: Sequence[LatencyTerm], budget: float
) -> None:
    columns: list[int] = []
    values: list[float] = []
    fixed = 0.0
    for term in terms:
        if not term.groups:
            fixed += float(term.seconds)
            if term.branch is not None:
                columns.append(drop[term.branch])
                values.append(-float(term.seconds))
        elif len(term.groups) == 1 and term.branch is None:
            columns.extend(z[term.groups[0]])
            values.extend(term.seconds.tolist())
        else:
            columns.extend(_marginals(programme, z, term, drop))
            values.extend(term.seconds.ravel().tolist())
    scale = 1.0 / max(abs(budget), 1e-12)
    programme.row(columns, [value * scale for value in values], -np.inf, (budget - fixed) * scale)


def solve(problem: Problem, *, gap: float = 2e-3, cut_off: Callable[[], None] = lambda: None) -> Solution | None:
    """The feasible choice with the least error, or None where no choice fits every budget. `cut_off` is called where
    the clock ended the solver, so that the answer may be another one next time.
    """
    programme = _Programme()
    drop = programme.columns(problem.branch_error, integral=True)
    for earlier, later in pairwise(drop):
        programme.row([later, earlier], [1.0, -1.0], -np.inf, 0.0)
    z: dict[str, range] = {}
    for choice in problem.choices:
        inside = choice.branch is not None
        z[choice.group] = programme.columns([0.0] * len(choice.widths) if inside else choice.error, integral=True)
        programme.row(z[choice.group], [1.0] * len(choice.widths), 1.0, 1.0)
        if choice.branch is not None:  # a group inside a dropped branch costs nothing more
            v = programme.columns(choice.error, integral=False)
            for column, level in zip(v, z[choice.group], strict=True):
                programme.row([column, level], [1.0, -1.0], -np.inf, 0.0)
            programme.row([*v, drop[choice.branch]], [1.0] * (len(v) + 1), 1.0, 1.0)
    for terms, budget in zip(problem.terms, problem.budget, strict=True):
        _add_latency(programme, z, drop, terms, budget)
    if not programme.cost:  # nothing to choose: the model as it is, or nothing
        only = evaluate(problem, {}, 0)
        return only if all(s <= b for s, b in zip(only.seconds, problem.budget, strict=True)) else None
    x = programme.solve(gap, cut_off)
    if x is None:
        return None
    chosen = {group: int(np.argmax(x[list(columns)])) for group, columns in z.items()}
    return evaluate(problem, chosen, round(float(np.sum(x[list(drop)]))))


def evaluate(problem: Problem, level: Mapping[str, int], dropped: int) -> Solution:
    """Predicted error and seconds of one choice."""
    error = float(sum(problem.branch_error[:dropped]))
    error += sum(c.error[level[c.group]] for c in problem.choices if c.branch is None or c.branch >= dropped)
    seconds = tuple(
        sum(
            float(term.seconds[tuple(level[group] for group in term.groups)])
            for term in terms
            if term.branch is None or term.branch >= dropped
        )
        for terms in problem.terms
    )
    return Solution(dict(level), dropped, error, seconds)


def cheapest(problem: Problem) -> Solution:
    """The narrowest choice of all with every branch dropped: what the floor is measured on."""
    return evaluate(problem, {choice.group: 0 for choice in problem.choices}, len(problem.branch_error))
