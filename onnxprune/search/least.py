"""The lowest latency at a limited loss: a search over latency targets, judged by finished models.

What a target costs in the end is only known of a finished model, so the search is over few of them: the first target is
the one at which the predicted loss reaches the limit, the next ones follow the losses found so far (log-linear between
two of them), inside the bracket of the lowest latency that passes and the highest that does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxprune.search.acceptance import Acceptance
from onnxprune.search.certify import certify
from onnxprune.search.contest import Contest
from onnxprune.search.finish import Finished, finish
from onnxprune.search.outcome import Outcome
from onnxprune.search.plan import Plan
from onnxprune.search.refine import Candidate

PREDICTED_DRIFT = 0.15
"""What the first target aims at where the limit is one of the user's metric."""
CLOSE_ENOUGH = 1.04
"""How far apart the ends of the bracket may stay."""
LOWEST = 0.02
"""No latency below this share of the input model's is tried."""
INSIDE = 0.25
"""A next target keeps this part of the bracket away from its ends, on a log scale."""
ROUNDS_A_TRIAL = 3
"""Targets that may be looked at for every model that may be finished: many end at a plan that is known."""
AIM = 0.93
"""The part of the limit that the next loss aims at: a model beyond it is of no use."""
USUAL_FALL = 2.0
"""How loss falls with latency, on log scales, where points on one side of the limit alone are known."""


@dataclass
class Bracket:
    """Latencies over the input model's: `passes`, the lowest that keeps within the limit, and `fails`, the highest that
    does not. `points`: (latency, loss as a share of the limit) of what was finished.
    """

    passes: float
    fails: float = LOWEST
    points: list[tuple[float, float]] = field(default_factory=list)

    def place(self, latency: float, passed: bool, share: float) -> None:
        """Takes in a finished model: its latency, whether it passes, and its loss as a share of the limit."""
        if passed:
            self.passes = min(self.passes, latency)
        else:
            self.fails = max(self.fails, latency)
        if 0 < share < math.inf:
            self.points.append((latency, share))

    def next(self) -> float:
        """The latency at which the loss is expected to reach the limit."""
        low, high = math.log(self.fails), math.log(self.passes)
        points = [(math.log(latency), math.log(loss)) for latency, loss in self.points]
        failed, passed = [p for p in points if p[1] > 0], [p for p in points if p[1] <= 0]
        if failed and passed:
            (x1, y1), (x2, y2) = max(failed), min(passed)
            aim = x1 + (x2 - x1) * (y1 - math.log(AIM)) / max(y1 - y2, 1e-9)
            margin = INSIDE * (high - low)
        elif points:  # all on one side: longer steps each time
            x, y = max(failed) if failed else min(passed)
            aim = x + (y - math.log(AIM)) / USUAL_FALL * 2 ** (len(points) - 1)
            margin = min(INSIDE * (high - low), math.log(CLOSE_ENOUGH))
        else:
            return math.exp((low + high) / 2)
        return math.exp(min(max(aim, low + margin), high - margin))


def least(contest: Contest, accepts: Acceptance, lossless: tuple[float, ...]) -> Outcome:
    """The lowest latency whose finished model keeps within every limit, certified to be lower than the input model's.
    `lossless`: the ratios that the lossless passes reach.
    """
    work = contest.work
    bracket = Bracket(max(lossless))
    best = finish(work, Plan(), {})
    finished: dict[str, Finished] = {}
    aim = first(contest, (accepts.max_drift or PREDICTED_DRIFT) ** 2, bracket.passes)
    for _ in range(ROUNDS_A_TRIAL * work.options.effort.trials):
        contest.aim((aim,) * len(lossless))
        candidate = contest.best()
        if candidate is None:
            bracket.fails = max(bracket.fails, aim)
        else:
            done = finished[repr(candidate.plan)] = _finished(contest, candidate, finished)
            refusal, latency = accepts.refusal(done), min(max(candidate.ratios), aim)
            work.progress.decide(f"trial {len(finished)}: {latency:.3f}x, {refusal or 'within the limit'}")
            best = done if refusal is None and latency < bracket.passes else best
            bracket.place(aim if refusal else latency, refusal is None, _share(accepts, done))
        enough = len(finished) >= work.options.effort.trials and best.plan != Plan()
        if enough or bracket.passes <= CLOSE_ENOUGH * bracket.fails:
            break
        aim = bracket.next()
    certificate = certify(work, work.file(best.compressed, "compressed"))
    return Outcome(False, best, certificate, None, contest.baseline_s)


def _finished(contest: Contest, candidate: Candidate, known: Mapping[str, Finished]) -> Finished:
    """The finished model of a candidate; a plan that comes again is not built again."""
    return known.get(repr(candidate.plan)) or contest.finish(candidate)


def _share(accepts: Acceptance, done: Finished) -> float:
    """Loss as a share of its limit, the larger one of two; 0 where no limit is above zero."""
    shares = [done.worst_drift / accepts.max_drift] if accepts.max_drift else []
    metric = accepts.metric(done)
    if accepts.max_drop and metric is not None:
        shares.append((accepts.before - metric) / accepts.max_drop)
    return max(shares, default=0.0)


def first(contest: Contest, error: float, highest: float) -> float:
    """The lowest latency at which the predicted squared drift is at most `error`, to within some per cent."""
    low, high = math.log(LOWEST), math.log(highest)
    for _ in range(6):
        middle = (low + high) / 2
        contest.aim((math.exp(middle),) * len(contest.baseline_s))
        predicted, _ = contest.predicted()[0]
        low, high = (low, middle) if predicted <= error else (middle, high)
    return math.exp(high)
