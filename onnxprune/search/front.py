"""A family of models along the front of latency and loss, from one body of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.search.acceptance import Acceptance
from onnxprune.search.certify import Certificate, certify
from onnxprune.search.contest import Contest
from onnxprune.search.finish import Finished, finish
from onnxprune.search.least import LOWEST, first
from onnxprune.search.outcome import Outcome
from onnxprune.search.plan import Plan

REACH = 0.3
"""Relative output error, as predicted, at the fast end where the user sets no limit."""


@dataclass(frozen=True)
class _Point:
    finished: Finished
    certificate: Certificate
    ratio: float
    loss: float


def front(contest: Contest, accepts: Acceptance, lossless: tuple[float, ...]) -> Outcome:
    """Models at targets that are evenly spaced, on a log scale, from the least loss to its limit; each is certified
    faster than the input model, and none is both slower than another one and worse.
    """
    work, top = contest.work, max(lossless)
    reach = min(accepts.max_drift or REACH, REACH)
    bottom = max(LOWEST, first(contest, reach**2, top))
    found: list[_Point] = []
    if top < 1:
        _add(found, contest, accepts, finish(work, Plan(), {}))
    for goal in np.geomspace(top, bottom, work.options.front + 1)[1:]:
        contest.aim((float(goal),) * len(lossless))
        candidate = contest.best()
        if candidate is None or any(candidate.plan == point.finished.plan for point in found):
            continue
        _add(found, contest, accepts, contest.finish(candidate))
    kept = undominated([(point.ratio, point.loss) for point in found])
    front_points = [found[i] for i in kept][-work.options.front :]
    points = tuple((point.finished, point.certificate) for point in front_points)
    said = _said(len(found) - len(kept))
    return Outcome(bool(points), None, None, None, contest.baseline_s, landing=said, front=points)


def _add(found: list[_Point], contest: Contest, accepts: Acceptance, finished: Finished) -> None:
    """Certifies a finished model, and takes it in where it keeps within the limits and is faster than the input."""
    work = contest.work
    refusal = accepts.refusal(finished)
    if refusal is not None:
        work.progress.decide(f"left out: {refusal}")
        return
    certificate = certify(work, work.file(finished.compressed, f"compressed-{len(found)}"))
    if not certificate.accepts(work.options.goal):
        work.progress.decide("left out: not certified to be faster than the input model")
        return
    found.append(_Point(finished, certificate, certificate.share(work.options.goal), accepts.loss(finished)))


def undominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (latency, loss) that no other one beats in one and equals in the other, slowest first."""

    def beaten(one: tuple[float, float]) -> bool:
        return any(p != one and p[0] <= one[0] and p[1] <= one[1] for p in points)

    kept = {point: i for i, point in enumerate(points) if not beaten(point)}
    return [i for _, i in sorted(kept.items(), reverse=True)]


def _said(count: int) -> str:
    return f"{count} models are left out: others are faster and lose no more" if count else ""
