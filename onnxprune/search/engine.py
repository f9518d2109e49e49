"""The whole search: from a workspace to a finished and certified model, or to the proof that there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxprune.errors import OnnxpruneError
from onnxprune.search.certify import Certificate, certify
from onnxprune.search.finish import Finished, finish
from onnxprune.search.plan import Plan, keep_masks
from onnxprune.search.pricing import branch_seconds, scheme_name
from onnxprune.search.refine import CLOSE, CONFIRMED, Candidate, SchemeSearch
from onnxprune.search.schemes import scheme_options
from onnxprune.search.sensitivity import Sensitivity, measure_sensitivity
from onnxprune.search.workspace import Workspace

ATTEMPTS = 3  # certifications: each later one aims lower by what the one before missed
WELL_UNDER = 0.9  # share of the target under which a result has to be explained
CONFIRMATIONS = 4  # looks in fresh processes, before weights are fitted


@dataclass(frozen=True)
class Outcome:
    """What the search ends with. `floor`: the lowest latency measured, as a ratio of the input model's, a value a
    target. `finished` is None where nothing was built, `certificate` where it was not worth one. `landing`: why the
    target is not used up, where it is not.
    """

    met: bool
    finished: Finished | None
    certificate: Certificate | None
    floor: tuple[float, ...] | None
    baseline_s: tuple[float, ...]
    landing: str = ""


def search(work: Workspace) -> Outcome:
    """Runs the search, and measures on this machine what it ends with: looks from a named table decide until then."""
    outcome = _searched(work)
    return replace(outcome, met=outcome.certificate is not None and outcome.certificate.met(work.options.goal))


def _searched(work: Workspace) -> Outcome:
    """The search without its verdict. The first thing tried is the lossless model: a target that it meets already
    needs no loss.
    """
    work.progress.stage("measuring", "the input model")
    looks = work.looks(work.base_file)
    baseline_s = tuple(look["baseline_s"] for look in looks)
    goal = tuple(work.options.goal.in_seconds(seconds) / seconds for seconds in baseline_s)
    lossless = max(look["ratio"] / limit for look, limit in zip(looks, goal, strict=True))
    first = looks[0]["ratio"]
    work.progress.decide(
        f"input model: {baseline_s[0] * 1e3:.3f} ms; after lossless passes {first:.3f}x; target {goal[0]:.3f}x"
    )
    if lossless <= CLOSE[1]:
        done = finish(work, Plan(), {})
        certificate = certify(work, work.base_file)
        if certificate.accepts(work.options.goal):
            work.progress.decide("the lossless passes meet the target already")
            return Outcome(False, done, certificate, None, baseline_s)
    options = scheme_options(work)
    fastest = min(options, key=lambda option: option.ratio)
    sensitivity = measure_sensitivity(work, branch_seconds(work, fastest.scheme))
    searches = [SchemeSearch(work, sensitivity, option.scheme, goal, baseline_s, option.error) for option in options]
    return _best_of(work, sensitivity, searches, baseline_s)


def _best_of(
    work: Workspace, sensitivity: Sensitivity, searches: Sequence[SchemeSearch], baseline_s: tuple[float, ...]
) -> Outcome:
    """Refines schemes in the order of their predicted error, and stops at the first whose refined error the others
    cannot beat.
    """
    predicted = sorted((pair for item in searches if (pair := _prepared(work, item))), key=lambda pair: pair[0])
    for attempt in range(ATTEMPTS):
        best = _confirmed([item for _, item in predicted], [error for error, _ in predicted])
        if best is None:
            return _not_met(work, sensitivity, [item for _, item in predicted], baseline_s)
        outcome = _certified(work, sensitivity, best, baseline_s)
        if outcome.certificate is None:
            return outcome
        if not work.options.uses("correction"):
            return outcome
        if outcome.certificate.accepts(work.options.goal):
            return replace(outcome, landing=_landing(work, outcome.certificate, best, searches))
        share, bound = (outcome.certificate.share(work.options.goal, bound=bound) for bound in (False, True))
        work.progress.decide(
            f"certified latency is {share:.3f} of the target, its bound {bound:.3f}: trying smaller ({attempt + 1})"
        )
        for item in searches:  # by the latency itself: the width of its bound is the machine's noise
            item.goal = tuple(limit * min(0.98, 0.98 / share) for limit in item.goal)
    return outcome


def _prepared(work: Workspace, item: SchemeSearch) -> tuple[float, SchemeSearch] | None:
    """A scheme with what it is predicted to lose at the target; None where its candidates cannot be built or run."""
    name = scheme_name(item.scheme)
    try:
        item.prepare()
    except OnnxpruneError as error:
        if item.scheme is None:
            raise
        work.progress.decide(f"{name} is left out: {error}")
        return None
    solution = item.solve()
    error_at_target = float("inf") if solution is None else solution.error + item.scheme_error
    work.progress.decide(f"{name}: predicted squared drift {error_at_target:.4g} at the target")
    return error_at_target, item


def _landing(work: Workspace, certificate: Certificate, best: Candidate, searches: Sequence[SchemeSearch]) -> str:
    """Why the certified latency stays well under the target: there is no level in between that loses less."""
    share = certificate.share(work.options.goal)
    if share > WELL_UNDER:
        return ""
    better = [max(c.ratios) for item in searches for c in item.tried if c.error < best.error]
    reason = f"the next larger level measured {min(better):.3f}x" if better else "no larger level loses less"
    return f"the certified latency is {share:.3f} of the target: {reason}"


def _confirmed(searches: Sequence[SchemeSearch], predicted: Sequence[float]) -> Candidate | None:
    """The best candidate over all schemes whose latency holds in fresh processes too, and uses the target up."""
    if not searches[0].work.options.uses("correction"):
        return _refined(searches, predicted)[1]
    best: Candidate | None = None
    for _ in range(CONFIRMATIONS):
        item, best = _refined(searches, predicted)
        if item is None or best is None or best.confirmed:
            break
        best = item.confirm(best)
        if CLOSE[0] <= best.share(item.limits) <= CONFIRMED:
            break
    return best


def _refined(
    searches: Sequence[SchemeSearch], predicted: Sequence[float]
) -> tuple[SchemeSearch | None, Candidate | None]:
    """Refines schemes in the order of their predicted error, as long as the next prediction can beat the best."""
    home, best = None, None
    for error, item in zip(predicted, searches, strict=True):
        if best is not None and error >= best.error:
            break
        found = item.refine()
        if found is not None and (best is None or found.error < best.error):
            home, best = item, found
    return home, best


def _certified(work: Workspace, sensitivity: Sensitivity, best: Candidate, baseline_s: tuple[float, ...]) -> Outcome:
    finished = finish(work, best.plan, keep_masks(best.plan, sensitivity.curves))
    limit = work.options.max_drift
    if limit is not None and not finished.worst_drift <= limit:  # it will be refused whatever its latency
        return Outcome(False, finished, None, None, baseline_s)
    path = work.file(finished.compressed, "compressed")
    certificate = certify(work, path)
    return Outcome(False, finished, certificate, None, baseline_s)


def _not_met(
    work: Workspace, sensitivity: Sensitivity, searches: Sequence[SchemeSearch], baseline_s: tuple[float, ...]
) -> Outcome:
    """Measures how low the latency can go at all, and builds the best there is where the user asked for it."""
    for item in searches:
        item.floor()
    tried = [candidate for item in searches for candidate in item.tried]
    lowest = min(tried, key=lambda candidate: max(candidate.ratios), default=None)
    if lowest is None:
        return Outcome(False, None, None, None, baseline_s)
    if not work.options.best_effort:
        return Outcome(False, None, None, lowest.ratios, baseline_s)
    return replace(_certified(work, sensitivity, lowest, baseline_s), floor=lowest.ratios)
