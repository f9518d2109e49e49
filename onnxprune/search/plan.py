"""A plan: how many units of each group stay, which residual branches go, and the precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune import ir
from onnxprune.channels import ChannelGraph
from passes.block_removal import Branch, drop
from passes.quantization import Scheme
from passes.structured_pruning.apply import prune
from passes.structured_pruning.levels import keep_mask
from passes.structured_pruning.obs import Curve


@dataclass(frozen=True)
class Plan:
    """`widths`: units kept, for groups that lose some. `dropped`: names of branches. `scheme`: None is float."""

    widths: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    scheme: Scheme | None = None


def keep_masks(plan: Plan, curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """The bool mask of kept units of every group that the plan narrows: the last ones in the removal order stay."""
    return {group: keep_mask(curves[group], width) for group, width in plan.widths.items()}


def narrowed(
    base: ir.Model, graph: ChannelGraph, keep: Mapping[str, np.ndarray], gone: Sequence[Branch]
) -> tuple[ir.Model, dict[str, str]]:
    """The float model of a plan, its weights only sliced (no compensation): what latency is measured on.

    Also the dense tensor that each tensor before a dropped branch now stands for.
    """
    model = base.copy()
    if keep:
        prune(model, graph, keep)
    return model, drop(model, gone) if gone else {}


def chosen_branches(branches: Sequence[Branch], plan: Plan) -> list[Branch]:
    """The branches that a plan drops, in graph order."""
    return [branch for branch in branches if branch.name in plan.dropped]
