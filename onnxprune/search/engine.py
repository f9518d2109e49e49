"""The whole search: from a workspace to finished and certified models, or to the proof that there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnxprune.search.acceptance import Acceptance
from onnxprune.search.certify import Certificate, certify
from onnxprune.search.contest import Contest, gather
from onnxprune.search.finish import Finished, finish
from onnxprune.search.form import choose_form
from onnxprune.search.front import front
from onnxprune.search.least import least
from onnxprune.search.outcome import Outcome
from onnxprune.search.plan import Plan
from onnxprune.search.refine import CLOSE, Candidate
from onnxprune.search.resources import Resource, resources
from onnxprune.search.workspace import Workspace
from runtime_bench.result import SLOWER_ABOVE

ATTEMPTS = 3  # certifications: each later one aims lower by what the one before missed
NEARLY = 0.99  # of the target: a latency under it that its bound alone puts over is measured again, twice as long
WELL_UNDER = 0.9  # share of the target under which a result has to be explained


def search(work: Workspace, acceptance: Acceptance | None = None) -> Outcome:
    """Runs the search, and measures on this machine what it ends with: looks from a named table decide until then."""
    outcome = _searched(work, acceptance or Acceptance(work.options.max_drift))
    if outcome.certificate is None:
        return outcome
    return replace(outcome, met=not outcome.missed and met(work, outcome.certificate))


def _searched(work: Workspace, accepts: Acceptance) -> Outcome:
    """The search without its verdict. The first thing tried is the lossless model: a target that it meets already
    needs no loss.
    """
    choose_form(work)
    work.progress.stage("measuring", "the input model")
    looks = work.looks(work.base_file)
    baseline_s = tuple(look["baseline_s"] for look in looks)
    goal = _goal(work, baseline_s)
    lossless = tuple(look["ratio"] for look in looks)
    work.progress.decide(
        f"input model: {baseline_s[0] * 1e3:.3f} ms; after lossless passes {lossless[0]:.3f}x; target {goal[0]:.3f}x"
    )
    if work.options.asks_least:
        return least(gather(work, goal, baseline_s), accepts, lossless)
    if work.options.front:
        return front(gather(work, goal, baseline_s), accepts, lossless)
    if max(ratio / limit for ratio, limit in zip(lossless, goal, strict=True)) <= CLOSE[1] and _small(work):
        certificate = certify(work, work.base_file)
        if _accepted(work, certificate):
            work.progress.decide("the lossless passes meet the target already")
            return Outcome(False, finish(work, Plan(), {}), certificate, None, baseline_s)
    return _to_target(gather(work, goal, baseline_s), accepts, goal)


def _goal(work: Workspace, baseline_s: tuple[float, ...]) -> tuple[float, ...]:
    """The latency target as ratios to the input model; where none is asked for, whatever is not slower."""
    if not work.options.asks_latency:
        return (SLOWER_ABOVE,) * len(baseline_s)
    return tuple(work.options.goal.in_seconds(seconds) / seconds for seconds in baseline_s)


def _small(work: Workspace) -> bool:
    """Whether the lossless model keeps within the limits of everything but latency."""
    return all(each.taken(work, work.base, work.base_file) <= each.limit for each in resources(work))


def _accepted(work: Workspace, certificate: Certificate) -> bool:
    """Whether the search takes the latency target as met; where only size or MACs are limited: that it is no slower."""
    if work.options.asks_latency:
        return certificate.accepts(work.options.goal)
    return certificate.share(work.options.goal) <= SLOWER_ABOVE


def met(work: Workspace, certificate: Certificate) -> bool:
    """Whether on this machine the latency target is met; where only size or MACs are limited: that the model is not
    slower.
    """
    if work.options.asks_latency or work.options.asks_least:
        return certificate.met(work.options.goal)
    return all(comparison.speedup().verdict != "SLOWER" for comparison in certificate.comparisons)


def _to_target(contest: Contest, accepts: Acceptance, goal: tuple[float, ...]) -> Outcome:
    """The least loss within the targets, certified; a certificate that misses makes the next attempt aim lower."""
    work, outcome = contest.work, None
    for attempt in range(ATTEMPTS):
        best = contest.best()
        if best is None:
            return _not_met(contest, accepts)
        outcome = _certified(contest, accepts, best)
        certificate = outcome.certificate
        if certificate is not None and not outcome.missed and _accepted(work, certificate):
            return replace(outcome, landing=_landing(contest, certificate, best))
        if not work.options.uses("correction"):
            return outcome
        if outcome.missed and outcome.finished is not None:
            over = _taken(work, outcome.finished)
            work.progress.decide(f"the finished model {outcome.missed}: trying smaller ({attempt + 1})")
            contest.tighten([min(1.0, each.limit / taken) for each, taken in over])
            continue
        if certificate is None:
            return outcome
        work.progress.decide(f"{_says(work, certificate)}: trying smaller ({attempt + 1})")
        # by the latency itself: the width of its bound is the machine's noise
        share = certificate.share(work.options.goal)
        if outcome.finished is not None:
            contest.correct(outcome.finished.plan, certificate.share(work.options.goal, bound=True))
        contest.aim(goal := tuple(limit * min(0.98, 0.98 / share) for limit in goal))
    assert outcome is not None
    return outcome


def _taken(work: Workspace, finished: Finished) -> list[tuple[Resource, float]]:
    """What a finished model takes of everything that is limited."""
    path = work.file(finished.compressed, "compressed")
    return [(each, each.taken(work, finished.compressed, path)) for each in resources(work)]


def _certified(contest: Contest, accepts: Acceptance, best: Candidate) -> Outcome:
    """Finishes a candidate and certifies it, where it keeps within all other limits."""
    work = contest.work
    finished = contest.finish_best(best, accepts.loss)
    outcome = Outcome(False, finished, None, None, contest.baseline_s)
    if not accepts.passes(finished):  # it will be refused whatever its latency
        return outcome
    over = [f"takes more than {each.said(each.limit)}" for each, taken in _taken(work, finished) if taken > each.limit]
    if over and not work.options.best_effort:
        return replace(outcome, missed=over[0])
    certificate = _sure(work, work.file(finished.compressed, "compressed"))
    return replace(outcome, certificate=certificate, missed=over[0] if over else "")


def _sure(work: Workspace, path: Path) -> Certificate:
    """The certificate of a model; where the width of the bound alone puts it over the target, a second one from twice
    as many processes, which costs less than another model.
    """
    first = certify(work, path)
    wanted = work.options.asks_latency and work.options.uses("correction")
    if not wanted or _accepted(work, first) or first.share(work.options.goal) > NEARLY:
        return first
    work.progress.decide(f"{_says(work, first)}: measuring again, twice as long")
    return certify(work, path, again=True)


def _says(work: Workspace, certificate: Certificate) -> str:
    share, bound = (certificate.share(work.options.goal, bound=bound) for bound in (False, True))
    return f"certified latency is {share:.3f} of the target, its bound {bound:.3f}"


def _landing(contest: Contest, certificate: Certificate, best: Candidate) -> str:
    """Why the certified latency stays well under the target: there is no level in between that loses less."""
    work = contest.work
    if not work.options.asks_latency or contest.searches[0].resources:
        return ""
    share = certificate.share(work.options.goal)
    if share > WELL_UNDER:
        return ""
    better = [max(c.ratios) for c in contest.tried if c.error < best.error]
    reason = f"the next larger level measured {min(better):.3f}x" if better else "no larger level loses less"
    return f"the certified latency is {share:.3f} of the target: {reason}"


def _not_met(contest: Contest, accepts: Acceptance) -> Outcome:
    """Measures how low the latency can go at all, and builds the best there is where the user asked for it."""
    work = contest.work
    for item in contest.searches:
        item.floor()
    lowest = min(contest.tried, key=lambda candidate: max(candidate.ratios), default=None)
    outcome = Outcome(False, None, None, None, contest.baseline_s)
    if lowest is None:
        return outcome
    limited = contest.searches[0].resources
    least = [min(c.taken[i] for c in contest.tried) for i in range(len(limited))]
    missed = [
        f"{each.said(each.limit)} cannot be reached: {each.said(value)} is the least"
        for each, value in zip(limited, least, strict=True)
        if value > each.limit
    ]
    bound = min((c.share(item.limits) for item in contest.searches for c in item.tried if c.confirmed), default=None)
    outcome = replace(outcome, floor=lowest.ratios, missed=missed[0] if missed else "", bound=bound)
    if not work.options.best_effort:
        return outcome
    built = _certified(contest, accepts, lowest)
    return replace(built, floor=lowest.ratios, missed=outcome.missed)
