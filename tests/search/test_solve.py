"""The integer programme against trying every choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from onnxprune.search.solve import LatencyTerm, Problem, Solution, WidthChoice, cheapest, evaluate, solve

GAP = 2e-3


def every(problem: Problem) -> Iterator[Solution]:
    names = [choice.group for choice in problem.choices]
    for dropped in range(len(problem.branch_error) + 1):
        for levels in product(*(range(len(choice.widths)) for choice in problem.choices)):
            yield evaluate(problem, dict(zip(names, levels, strict=True)), dropped)


def fits(problem: Problem, solution: Solution) -> bool:
    return all(s <= b * (1 + 1e-6) + 1e-9 for s, b in zip(solution.seconds, problem.budget, strict=True))


def brute_force(problem: Problem) -> Solution | None:
    return min((s for s in every(problem) if fits(problem, s)), key=lambda s: s.error, default=None)


def random_problem(seed: int, providers: int = 1) -> Problem:
    """Three groups, up to three branches, terms over none to two groups, and terms that only tell a difference."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 4))
    choices = []
    for g in range(3):
        levels = int(rng.integers(2, 5))
        error = np.sort(rng.random(levels))[::-1]
        error[-1] = 0.0
        branch = int(rng.integers(count)) if count and rng.random() < 0.6 else None
        choices.append(WidthChoice(f"g{g}", tuple(range(4, 4 * levels + 4, 4)), tuple(error.tolist()), branch))
    width = {choice.group: np.array(choice.widths, float) for choice in choices}
    branch_of = {choice.group: choice.branch for choice in choices}

    def term(*groups: str) -> LatencyTerm:
        grid = np.meshgrid(*(width[g] for g in groups), indexing="ij")
        seconds = np.asarray(np.prod(grid, axis=0), float) + rng.random(tuple(len(width[g]) for g in groups))
        inside = {branch_of[g] for g in groups}
        return LatencyTerm(groups, seconds, inside.pop() if len(inside) == 1 else None)

    def difference(group: str) -> LatencyTerm:
        return LatencyTerm((group,), width[group] - width[group][-1], branch_of[group])

    def provider() -> tuple[LatencyTerm, ...]:
        terms = [term("g0"), term("g0", "g1"), term("g1", "g2"), term("g2", "g1"), term("g0")]
        terms += [difference("g1"), difference("g2"), LatencyTerm((), np.array(3.0))]
        terms += [LatencyTerm((), np.array(20.0 * rng.random()), k) for k in range(count)]
        return tuple(terms)

    terms = tuple(provider() for _ in range(providers))
    problem = Problem(tuple(choices), tuple(rng.random(count).tolist()), terms, (0.0,) * providers)
    full = evaluate(problem, {c.group: len(c.widths) - 1 for c in choices}, 0)
    least = [min(s.seconds[i] for s in every(problem)) for i in range(providers)]
    share = rng.uniform(0.05, 0.9, providers)
    return replace(
        problem, budget=tuple(a + float(s) * (b - a) for a, b, s in zip(least, full.seconds, share, strict=True))
    )


@pytest.mark.parametrize("providers", [1, 2])
@pytest.mark.parametrize("seed", range(25))
def test_the_choice_is_the_best_that_fits(seed: int, providers: int) -> None:
    problem = random_problem(seed, providers)
    best, found = brute_force(problem), solve(problem)
    if best is None:
        assert found is None
        return
    assert found is not None and fits(problem, found)
    assert best.error - 1e-9 <= found.error <= best.error * (1 + 2 * GAP) + 1e-6
    assert found == evaluate(problem, found.level, found.dropped)


def test_a_budget_that_nothing_fits() -> None:
    problem = random_problem(3)
    floor = min(solution.seconds[0] for solution in every(problem))
    assert solve(replace(problem, budget=(floor * 0.99,))) is None


def test_every_provider_must_fit() -> None:
    choice = WidthChoice("g", (1, 2, 3), (4.0, 1.0, 0.0))
    one, other = (LatencyTerm(("g",), np.array(seconds)) for seconds in ([1.0, 2.0, 3.0], [1.0, 5.0, 6.0]))
    found = solve(Problem((choice,), (), ((one,), (other,)), (2.5, 10.0)))
    assert found is not None and found.level == {"g": 1}
    found = solve(Problem((choice,), (), ((one,), (other,)), (2.5, 4.0)))
    assert found is not None and found.level == {"g": 0}


def test_branches_go_in_their_order() -> None:
    """The second branch would be the cheap one, but its error only counts after the first."""
    terms = tuple(LatencyTerm((), np.array(5.0), k) for k in range(3))
    problem = Problem((), (4.0, 0.1, 2.0), (terms,), (11.0,))
    found = solve(problem)
    assert found is not None and (found.dropped, found.error) == (1, 4.0)
    found = solve(replace(problem, budget=(6.0,)))
    assert found is not None and (found.dropped, found.error) == (2, 4.1)


def test_a_group_in_a_dropped_branch_costs_nothing() -> None:
    choices = (WidthChoice("in", (1, 2), (9.0, 0.0), 0), WidthChoice("out", (1, 2), (3.0, 0.0)))
    terms = (LatencyTerm(("in",), np.array([4.0, 8.0]), 0), LatencyTerm(("out",), np.array([1.0, 2.0])))
    found = solve(Problem(choices, (2.0,), (terms,), (2.0,)))
    assert found is not None and found.dropped == 1
    assert found.level["out"] == 1 and found.error == 2.0 and found.seconds == (2.0,)


def test_a_group_that_occurs_many_times() -> None:
    choice = WidthChoice("g", (1, 2), (1.0, 0.0))
    terms = tuple(LatencyTerm(("g",), np.array([1.0, 2.0])) for _ in range(50))
    found = solve(Problem((choice,), (), (terms,), (99.0,)))
    assert found is not None and found.level == {"g": 0}
    found = solve(Problem((choice,), (), (terms,), (100.0,)))
    assert found is not None and found.level == {"g": 1}


def test_nothing_to_choose() -> None:
    problem = Problem((), (), ((LatencyTerm((), np.array(1.0)),),), (2.0,))
    assert solve(problem) == Solution({}, 0, 0.0, (1.0,))
    assert solve(replace(problem, budget=(0.5,))) is None


def test_the_cheapest_choice_is_all_narrow_and_shallow() -> None:
    problem = random_problem(1)
    found = cheapest(problem)
    assert set(found.level.values()) == {0} and found.dropped == len(problem.branch_error)
