"""From candidates to one finished model: the most promising are finished for real, and the best of those is proved.

What compensation makes up for is not what any prediction says, so the last choice is between finished models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnxprune.search.depth import squared
from onnxprune.search.finish import Finished, built, proved, refined
from onnxprune.search.plan import Plan
from onnxprune.search.prediction import Pair
from onnxprune.search.rehearsal import Rehearsal
from onnxprune.search.workspace import Workspace
from onnxprune.stats.arrays import Array

Judge = Callable[[Finished], float]
"""What decides between finished models: lower is better."""


@dataclass(frozen=True)
class Contender:
    """A plan with the masks of what it keeps and its predicted squared relative output error, where there is one."""

    plan: Plan
    keep: Mapping[str, Array]
    predicted: float = math.nan


def least_drift(done: Finished) -> float:
    """Squared relative output error on held-out samples, mean over outputs."""
    return squared(done.drift)


def rehearsed(work: Workspace, ladder: Sequence[Contender]) -> list[Contender]:
    """The contenders in the order of what rehearsals give, the best first; those that no rehearsal saw come last.

    `ladder`: neighbours are alike, such as plans with one branch more or less dropped. Rehearsals start at the best
    prediction.
    """
    start = min(range(len(ladder)), key=lambda rung: ladder[rung].predicted)
    most = work.options.effort.rehearsals if len(ladder) > 1 else 0
    rehearsal = Rehearsal(work)

    def look(rung: int) -> float:
        work.progress.stage("rehearsing", f"{len(ladder[rung].plan.dropped)} branches dropped")
        real = rehearsal(ladder[rung].plan, ladder[rung].keep)
        work.predictions.append(Pair(ladder[rung].predicted, real, "rehearsed"))
        return real

    found = climb(len(ladder), start, look, most, step=max(1, len(ladder) // 4)) if most > 1 else {}
    last = sorted(set(range(len(ladder))) - found.keys(), key=lambda rung: ladder[rung].predicted)
    return [ladder[rung] for rung in (*sorted(found, key=lambda rung: found[rung]), *last)]


def climb(rungs: int, start: int, look: Callable[[int], float], most: int, step: int) -> dict[int, float]:
    """What `look` gave on the rungs that a search for its least value went over, at most `most` of them.

    From the best rung known it tries `step` to either side, and halves the step where neither is better.
    """
    found = {start: look(start)}
    while step and len(found) < most:
        here = min(found, key=lambda rung: found[rung])
        near = [rung for rung in (here - step, here + step) if 0 <= rung < rungs and rung not in found]
        for rung in near[: most - len(found)]:
            found[rung] = look(rung)
        step = step if near else step // 2
    return found


def best_finished(work: Workspace, contenders: Sequence[Contender], judge: Judge = least_drift) -> Finished:
    """Builds the first few contenders (how many by effort) and keeps the one that `judge` likes best, refined and
    proved. Only that one is refined: it costs more than all before it.

    Raises OnnxpruneError where the oracle finds a difference.
    """
    chosen = contenders[: work.options.effort.finalists]
    if len(chosen) == 1:  # nothing to judge before it is refined
        best = built(work, chosen[0].plan, chosen[0].keep, share=1.0)
        _recorded(work, chosen[0], best)
        return proved(work, best)
    scored: list[tuple[float, Finished]] = []
    for each in chosen:
        done = built(work, each.plan, each.keep, share=0.0)
        _recorded(work, each, done)
        scored.append((judge(done), done))
        work.progress.decide(_said(each, *scored[-1]))
    best = min(scored, key=lambda pair: pair[0])[1]
    return proved(work, refined(work, best))


def _recorded(work: Workspace, contender: Contender, done: Finished) -> None:
    if not math.isnan(contender.predicted):
        work.predictions.append(Pair(contender.predicted, squared(done.drift)))


def _said(contender: Contender, score: float, done: Finished) -> str:
    dropped, narrowed = len(contender.plan.dropped), len(contender.plan.widths)
    return (
        f"finished: {dropped} branches dropped, {narrowed} groups narrowed; squared drift {squared(done.drift):.4g} "
        f"(predicted {contender.predicted:.4g}); score {score:.4g}"
    )
