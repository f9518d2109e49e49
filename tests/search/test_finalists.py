"""The last choice: plans rehearsed, the best finished, the best of those proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from onnxprune import channels, ir
from onnxprune.progress import SilentProgress
from onnxprune.search.budget import for_macs
from onnxprune.search.contest import Contest
from onnxprune.search.depth import DropOrder, squared
from onnxprune.search.effort import EFFORTS
from onnxprune.search.finalists import Contender, best_finished, climb, least_drift
from onnxprune.search.finish import Finished
from onnxprune.search.options import SearchOptions
from onnxprune.search.plan import Plan
from onnxprune.search.refine import Candidate
from onnxprune.search.rehearsal import Rehearsal
from onnxprune.search.sensitivity import Sensitivity
from onnxprune.search.solve import Solution
from onnxprune.search.workspace import Workspace
from onnxprune.stats import Feeds
from onnxprune.units import parse_target
from passes.block_removal import branches
from passes.refinement import Refinement, refine
from passes.structured_pruning.levels import build_levels

Residual = Callable[..., ir.Model]


def valley(best: int) -> Callable[[int], float]:
    return lambda rung: float((rung - best) ** 2)


@pytest.mark.parametrize("best", range(9))
@pytest.mark.parametrize("start", [0, 4, 8])
def test_a_climb_finds_the_bottom_of_a_valley(best: int, start: int) -> None:
    found = climb(9, start, valley(best), 20, step=2)
    assert min(found, key=lambda rung: found[rung]) == best
    assert len(found) < 9


def test_a_climb_looks_no_more_often_than_it_may() -> None:
    seen: list[int] = []

    def look(rung: int) -> float:
        seen.append(rung)
        return float(-rung)

    assert list(climb(40, 3, look, 4, step=10)) == seen and len(seen) == 4
    assert climb(1, 0, look, 9, step=1) == {0: 0.0}


@pytest.fixture(scope="module")
def work(residual: Residual, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    model = residual(blocks=2, width=8, inner=12)
    shapes = ir.shapes_for(model, {"x": (1, 3, 8, 8)})
    folder = tmp_path_factory.mktemp("finalists")
    return Workspace(
        original=folder / "m.onnx",
        base=model,
        graph=channels.analyze(model),
        branches=branches(model, shapes),
        feeds=Feeds.synthetic(model, 64, 0),
        held=Feeds.synthetic(model, 32, 1),
        shapes=shapes,
        options=SearchOptions(parse_target("0.5x"), effort=EFFORTS["normal"]),
        progress=SilentProgress(),
        folder=folder,
    )


@pytest.fixture(scope="module")
def contenders(work: Workspace) -> list[Contender]:
    return for_macs(work, 0.5)


def test_plans_come_in_the_order_that_rehearsals_give(work: Workspace, contenders: list[Contender]) -> None:
    depths = [len(each.plan.dropped) for each in contenders]
    assert sorted(depths) == list(range(len(depths))) and len(depths) > 1
    seen = {pair.predicted: pair.real for pair in work.predictions if pair.how == "rehearsed"}
    assert 1 < len(seen) <= min(len(contenders), work.options.effort.rehearsals)
    assert [seen[each.predicted] for each in contenders[: len(seen)]] == sorted(seen.values())
    first = contenders[0]
    assert Rehearsal(work)(first.plan, first.keep) == pytest.approx(seen[first.predicted])


def test_the_judge_decides_and_only_the_winner_is_proved(work: Workspace, contenders: list[Contender]) -> None:
    finished: list[Finished] = []

    def worst(done: Finished) -> float:
        finished.append(done)
        return -squared(done.drift)

    chosen = best_finished(work, contenders, worst)
    assert [done.plan for done in finished] == [each.plan for each in contenders[:2]]
    assert all(done.oracle is None for done in finished) and chosen.oracle is not None and chosen.oracle.ok
    assert squared(chosen.drift) == max(squared(done.drift) for done in finished)
    real = {pair.predicted: pair.real for pair in work.predictions if pair.how == "finished"}
    assert list(real.values()) == [squared(done.drift) for done in finished]
    assert min(finished, key=least_drift).plan.dropped == contenders[int(np.argmin(list(real.values())))].plan.dropped


@dataclass
class Scheme:
    """Stands for a search in one scheme that has found its candidate, which takes `fresh` of its target in fresh
    processes.
    """

    scheme: str | None
    found: Candidate | None
    fresh: float = 0.99

    def best(self) -> Candidate | None:
        return self.found

    def confirm(self, candidate: Candidate) -> Candidate:
        return replace(candidate, ratios=(self.fresh,), confirmed=True)

    def fits(self, candidate: Candidate) -> bool:
        return candidate.confirmed and candidate.ratios[0] <= 1


def test_rivals_are_finished_where_they_are_predicted_to_lose_little_more(
    work: Workspace, contenders: list[Contender]
) -> None:
    curves = build_levels(work.base, work.graph, None, statistics=work.statistics)
    sensitivity = Sensitivity(curves, {}, (), DropOrder(), {}, {}, {})
    solution = Solution({}, 0, 0.0, ())
    leader, rival, hopeless = (
        Candidate(contenders[place].plan, solution, (0.5,), error) for place, error in ((1, 1.0), (0, 1.4), (0, 1.6))
    )
    judged: list[Plan] = []

    def judge(done: Finished) -> float:
        judged.append(done.plan)
        return squared(done.drift)

    def finished(*others: Scheme) -> Finished:
        judged.clear()
        searches: list[Any] = [Scheme(None, leader), *others]
        return Contest(work, sensitivity, searches, (1.0,)).finish_best(leader, judge)

    assert finished(Scheme("8 bits", rival), Scheme("4 bits", None)).plan == rival.plan
    assert judged == [leader.plan, rival.plan]
    alone = Scheme("8 bits", hopeless), Scheme("8 bits", rival, fresh=1.01), Scheme(None, rival)
    for other in alone:  # predicted to lose more, slower in fresh processes, of the same scheme: nothing to judge
        assert finished(other).plan == leader.plan and judged == []


def test_only_the_winner_is_refined(
    work: Workspace, contenders: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Feeds.from_arrays({"x": np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)}, work.base)
    refined: list[ir.Model] = []

    def counted(dense: ir.Model, compressed: ir.Model, *rest: Any, **options: Any) -> Refinement:
        refined.append(compressed)
        return refine(dense, compressed, *rest, **options)

    monkeypatch.setattr("onnxprune.search.finish.refine", counted)
    chosen = best_finished(replace(work, feeds=given), contenders)
    assert len(refined) == 1 and chosen.oracle is not None and chosen.oracle.ok
