"""Pruning to a share of the MACs: widths by the error that they cost at the outputs, and depth where the user allows
it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune import ir
from onnxprune.errors import TargetNotMetError, UsageError
from onnxprune.search import levels as level_choice
from onnxprune.search.finalists import Contender, rehearsed
from onnxprune.search.plan import Plan, keep_masks
from onnxprune.search.sensitivity import Sensitivity, measure_sensitivity
from onnxprune.search.workspace import Workspace
from passes.block_removal import drop
from passes.structured_pruning.allocate import widths_for_macs
from passes.structured_pruning.obs import Curve


def for_macs(work: Workspace, budget: float) -> list[Contender]:
    """Plans whose MACs are at most `budget` times the base model's, one a depth, the best first: by rehearsals, where
    effort allows them.

    Raises TargetNotMetError where no plan is that small.
    """
    sensitivity = measure_sensitivity(work)
    curves = {name: _scaled(curve, sensitivity, name) for name, curve in sensitivity.curves.items()}
    depths = range(len(sensitivity.drops.branches) + 1)
    found = [each for count in depths if (each := _with_drops(work, sensitivity, curves, budget, count)) is not None]
    if not found:
        raise TargetNotMetError(f"{budget:g}x of the MACs cannot be reached; see onnxprune analyze for what is frozen")
    return rehearsed(work, found)


def _scaled(curve: Curve, sensitivity: Sensitivity, name: str) -> Curve:
    """The curve in units of the outputs' error."""
    widths = range(len(curve.order) + 1)
    errors = level_choice.errors(curve, widths, sensitivity.probes.get(name, ()))
    return Curve(curve.order, np.array(errors[::-1]))


def _with_drops(
    work: Workspace, sensitivity: Sensitivity, curves: Mapping[str, Curve], budget: float, count: int
) -> Contender | None:
    """The best plan by prediction when the first `count` branches of the drop order go."""
    gone = sensitivity.drops.branches[:count]
    model = work.base.copy()
    if gone:
        drop(model, gone)
    left = ir.macs(model, work.shapes)
    share = budget * ir.macs(work.base, work.shapes) / left
    inside = {name for name, branch in sensitivity.branch_of_group.items() if branch < count}
    usable = {name: curve for name, curve in curves.items() if name not in inside}
    widths: dict[str, int] = {}
    if share < 1:
        try:
            widths = widths_for_macs(model, work.graph, usable, share, work.shapes)
        except UsageError:  # this depth alone does not reach the budget
            return None
    widths = {name: width for name, width in widths.items() if width < work.graph.group(name).width}
    error = sum(sensitivity.drops.steps[:count]) + sum(usable[name].at(width) for name, width in widths.items())
    plan = Plan(widths, tuple(branch.name for branch in gone))
    return Contender(plan, keep_masks(plan, sensitivity.curves), error)
