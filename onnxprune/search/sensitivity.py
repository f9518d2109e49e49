"""What every level does to the outputs: curves and probes for widths, a measured order for branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxprune import ir
from onnxprune.channels import Group
from onnxprune.search import levels as level_choice
from onnxprune.search.depth import HOPELESS, DropOrder, drop_order
from onnxprune.search.probes import Probes, picks
from onnxprune.search.solve import WidthChoice
from onnxprune.search.workspace import Workspace
from passes.block_removal import Branch
from passes.structured_pruning.levels import build_levels, keep_mask
from passes.structured_pruning.obs import Curve

FEW_GROUPS = 4  # with so few, more levels a group are needed to land near a target, and cost little


@dataclass(frozen=True)
class Sensitivity:
    """Levels and their errors (squared relative output error), for widths and for depth."""

    curves: Mapping[str, Curve]
    levels: Mapping[str, tuple[int, ...]]
    choices: tuple[WidthChoice, ...]
    drops: DropOrder
    branch_of_node: Mapping[str, int]
    branch_of_group: Mapping[str, int]
    probes: Mapping[str, Sequence[level_choice.Probe]]


def measure_sensitivity(work: Workspace, saved: Mapping[str, float] | None = None) -> Sensitivity:
    """Prices the loss of every level of every group and of every branch. `saved`: what dropping each branch saves, by
    name, in any unit; its MACs where nothing better is known. Groups inside subgraphs get a curve and, where
    statistics see them, probes; no choices, since no cluster of theirs can be measured alone.
    """
    work.progress.stage("ranking units", f"{len(work.graph.groups)} groups")
    curves = build_levels(
        work.base, work.graph, None, work.options.criterion, work.options.seed, statistics=work.statistics
    )
    groups = [group for group in work.graph.groups if group.name in curves and group.name not in work.in_subgraphs]
    most = level_choice.MOST_LEVELS * (2 if len(groups) <= FEW_GROUPS else 1)
    inside = [work.graph.group(name) for name in sorted(work.in_subgraphs - work.unseen)] if not work.benches else []
    levels = {group.name: level_choice.widths(group, most) for group in (*groups, *inside)}
    drops = DropOrder()
    if work.options.drop_branches and work.options.uses("depth"):
        work.progress.stage("ranking branches", f"{len(work.branches)} branches")
        drops = drop_order(
            work.base,
            work.branches,
            work.probe_feeds(),
            work.fitting,
            saved or branch_macs(work, work.branches),
            lambda text: work.progress.stage("ranking branches", text),
            hopeless=max(HOPELESS, (work.options.max_drift or 0.0) ** 2),
            look_ahead=work.options.effort.look_ahead,
        )
    branch_of_node = {key: index for index, branch in enumerate(drops.branches) for key in branch.dropped}
    branch_of_group = {group.name: at for group in groups if (at := _branch_of(group, branch_of_node)) is not None}
    probes = _probes(work, [*groups, *inside], levels, curves)
    choices = level_choice.width_choices(groups, levels, curves, probes, branch_of_group)
    return Sensitivity(curves, levels, choices, drops, branch_of_node, branch_of_group, probes)


def _probes(
    work: Workspace,
    groups: Sequence[Group],
    levels: Mapping[str, tuple[int, ...]],
    curves: Mapping[str, Curve],
) -> dict[str, list[level_choice.Probe]]:
    """Two levels of every group, each alone in the dense network: about a half and about a quarter of its units."""
    probe = Probes(work.open_base, work.probe_feeds(), work.statistics)
    found: dict[str, list[level_choice.Probe]] = {}
    for position, group in enumerate(sorted(groups, key=probe.first_change)):
        work.progress.stage("probing levels", f"{position + 1} of {len(groups)} groups")
        probed = [
            level_choice.Probe(width, probe(group, keep_mask(curves[group.name], width)))
            for width in picks(levels[group.name])
        ]
        # a branch that no sample takes moves no output: its own curves say more than that
        found[group.name] = [each for each in probed if each.error > 0 or group.name not in work.in_subgraphs]
    return found


def branch_macs(work: Workspace, branches: Sequence[Branch]) -> dict[str, float]:
    """MACs in each branch, at least one: what dropping it saves, before anything is measured."""
    nodes = {ir.node_key(node): node for node in work.base.graph.nodes}
    return {
        branch.name: max(1.0, float(sum(ir.node_macs(nodes[key], work.shapes) for key in branch.dropped)))
        for branch in branches
    }


def _branch_of(group: Group, branch_of_node: Mapping[str, int]) -> int | None:
    """The branch that holds every producer and consumer of a group, if one does."""
    homes = {branch_of_node.get(contraction.node) for contraction in group.contractions}
    return homes.pop() if len(homes) == 1 else None
