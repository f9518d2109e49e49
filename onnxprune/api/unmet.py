"""Why a target was not met, in one line."""

from __future__ import annotations

from onnxprune import ir
from onnxprune.api.analysis import largest_cause
from onnxprune.errors import TargetNotMetError
from onnxprune.search.outcome import Outcome
from onnxprune.search.workspace import Workspace

_NOISE = "try again on a quieter machine, or ask for a little more"


def error(work: Workspace, outcome: Outcome) -> TargetNotMetError:
    """The error that a search ends with which has found nothing that may be had."""
    goal = work.options.goal
    if outcome.missed:
        return TargetNotMetError(f"the target was not met: {outcome.missed}{_cause(work)}")
    if outcome.floor is not None:
        return TargetNotMetError(_floor(work, outcome, outcome.floor))
    if outcome.certificate is None:
        return TargetNotMetError(f"the target {goal.text} was not met: no candidate could be built and run")
    if not work.options.asks_latency:
        wanted = "faster" if work.options.asks_least else "no slower"
        ratio = max(comparison.speedup().ratio for comparison in outcome.certificate.comparisons)
        best = f"the best one takes {ratio:.3f}x"
        return TargetNotMetError(f"no model within the limits is certified to be {wanted} than the input model: {best}")
    share = outcome.certificate.bound_here(goal)
    return TargetNotMetError(
        f"the target {goal.text} was not certified: the 95 % bound of the latency is {share:.3f} of it; {_NOISE}"
    )


def _floor(work: Workspace, outcome: Outcome, floor: tuple[float, ...]) -> str:
    """The lowest latency there is, and what missed: the latency itself, or the bound of a latency that would do."""
    goal = work.options.goal
    limits = [goal.in_seconds(seconds) / seconds for seconds in outcome.baseline_s]
    ratio, seconds = max(zip(floor, outcome.baseline_s, strict=True))
    lowest = f"the lowest latency measured is {ratio:.3f}x of the input model ({ratio * seconds * 1e3:.3g} ms)"
    if all(found <= limit for found, limit in zip(floor, limits, strict=True)):
        why = "not by enough to be sure of it"
        if outcome.bound:
            why = f"the 95 % bound of the nearest plan in fresh processes is {outcome.bound:.3f} of the target"
        return f"the target {goal.text} could not be proved: {lowest}, but {why}; {_NOISE}"
    return f"the target {goal.text} cannot be met: {_nothing(work)}{lowest}{_pinned(work.base)}"


def _nothing(work: Workspace) -> str:
    if work.graph.groups or work.branches:
        return ""
    return f"nothing in this model can be pruned: {largest_cause(work.graph.shares(work.base, work.shapes))}; "


def _cause(work: Workspace) -> str:
    nothing = _nothing(work)
    return f"; {nothing.removesuffix('; ')}" if nothing else _pinned(work.base)


def _pinned(model: ir.Model) -> str:
    """The hint for models whose weights are inputs with default values, which nothing may change."""
    count = len(model.graph.inputs) - len(ir.feed_inputs(model))
    return f"; {count} weights are graph inputs: --freeze-initializers makes them constants" if count else ""
