"""Widths under a budget: where to remove how much, from the error curves of all groups together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.channels import ChannelGraph, Group
from onnxprune.channels.facts import is_weight
from onnxprune.errors import UsageError
from onnxprune.stats.arrays import Array
from passes.structured_pruning.obs import Curve

_STEPS = 64  # a group is narrowed in at most about this many steps
_SLACK = 1e-9


@dataclass(frozen=True)
class _Axis:
    """One weight axis; for each group the share of it that has left when the first k units in the order of removal
    have, k = 0 ... units.
    """

    gone: Mapping[str, Array]

    def left(self, removed: Mapping[str, int], name: str, counts: Array) -> Array:
        """The share of the axis that is left for each of the ``counts`` of units that the group ``name`` loses."""
        others = sum(float(gone[removed.get(group, 0)]) for group, gone in self.gone.items() if group != name)
        own: Array = self.gone[name][counts] if name in self.gone else np.zeros(len(counts))
        return 1.0 - others - own


class MacsModel:
    """MACs of the model as a function of how many units leave every group, in the order of its curve.

    Exact for contractions: the MACs of a node are those of the dense one times the share that is left of its weight's
    input and output axes.
    """

    def __init__(
        self,
        model: ir.Model,
        graph: ChannelGraph,
        curves: Mapping[str, Curve],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._nodes: list[tuple[int, list[_Axis]]] = []
        self.by_group: dict[str, list[int]] = {group.name: [] for group in graph.groups}
        touching: dict[str, list[Group]] = {}
        for group in (group for group in graph.groups if group.name in curves):
            for name in {name for name, _ in group.owner}:
                touching.setdefault(name, []).append(group)
        for node, times in ir.repeated_nodes(model, shapes):
            for macs, weight in ir.macs_by_weight(node, shapes):
                self._add(weight or _computed(node), times * macs, touching, curves)
        self.total = sum(macs for macs, _ in self._nodes)

    def _add(
        self,
        weight: ir.Constant | ir.Variable | None,
        macs: int,
        touching: Mapping[str, list[Group]],
        curves: Mapping[str, Curve],
    ) -> None:
        axes: list[_Axis] = []
        if weight is None:
            self._nodes.append((macs, axes))
            return
        groups = touching.get(weight.name, [])
        for axis in range(len(weight.shape)):
            gone = {
                group.name: _shares(group, owner, curves[group.name].order)
                for group in groups
                if (owner := group.owner.get((weight.name, axis))) is not None
            }
            if gone:
                axes.append(_Axis(gone))
        for name in {name for axis in axes for name in axis.gone}:
            self.by_group[name].append(len(self._nodes))
        self._nodes.append((macs, axes))

    def neighbours(self, name: str) -> set[str]:
        """Groups whose MACs depend on the width of this one, itself included."""
        axes = [axis for place in self.by_group[name] for axis in self._nodes[place][1]]
        return {name} | {other for axis in axes for other in axis.gone}

    def macs(self, removed: Mapping[str, int]) -> float:
        """Of the whole model where every group has lost so many units."""
        return float(sum(_left(node, removed, "", np.zeros(1, np.int64))[0] for node in self._nodes))

    def along(self, removed: Mapping[str, int], name: str, counts: Array) -> Array:
        """Of the nodes that the group ``name`` touches, for each of the ``counts`` of units that it loses; ``removed``:
        how many every other group has lost.
        """
        nodes = [self._nodes[place] for place in self.by_group[name]]
        return sum((_left(node, removed, name, counts) for node in nodes), start=np.zeros(len(counts)))


def _left(node: tuple[int, list[_Axis]], removed: Mapping[str, int], name: str, counts: Array) -> Array:
    macs, axes = node
    left = np.full(len(counts), float(macs))
    for axis in axes:
        left *= axis.left(removed, name, counts)
    return left


def _shares(group: Group, owner: Array, order: Array) -> Array:
    """The share of an axis that the first k units of ``order`` own."""
    owned = np.bincount(owner[owner >= 0], minlength=group.width)[order]
    return np.concatenate([[0], np.cumsum(owned)]) / len(owner)


def _computed(node: ir.Node) -> ir.Variable | None:
    """The matrix that the node multiplies with, where it is computed from constants, such as a quantized one."""
    return next((t for t in node.inputs if t.name and t.shape is not None and len(t.shape) > 1 and is_weight(t)), None)


def widths_for_macs(
    model: ir.Model,
    graph: ChannelGraph,
    curves: Mapping[str, Curve],
    budget: float,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    importance: Mapping[str, float] | None = None,
    multiple: int = 1,
) -> dict[str, int]:
    """The width of every group such that the MACs come down to ``budget`` times the dense ones, at little error.

    Greedy on error per MAC saved: the next step is the one, of any length in any group, that costs least for what it
    saves. ``importance`` weighs the curves; ``multiple``: widths are kept at multiples of this where the group is
    wide enough. Raises UsageError where the budget is not in (0, 1] or cannot be reached.
    """
    if not 0 < budget <= 1:
        raise UsageError(f"the MACs budget must be over 0 and at most 1, not {budget:g}")
    search = _Search(graph, curves, MacsModel(model, graph, curves, shapes), importance or {}, multiple)
    goal = budget * search.costs.total
    while search.now > goal * (1 + _SLACK):
        if not search.narrow():
            least = search.now / search.costs.total
            raise UsageError(f"pruning cannot reach {budget:g} of the MACs; the least it can reach is {least:.3f}")
    search.widen(goal * (1 + _SLACK))
    return {name: ladder[search.place[name]] for name, ladder in search.ladders.items()}


class _Search:
    """Widths on their way down. The best next step of a group is known until a group that shares a node with it
    moves.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        curves: Mapping[str, Curve],
        costs: MacsModel,
        importance: Mapping[str, float],
        multiple: int,
    ) -> None:
        self.costs = costs
        self.ladders = {group.name: _ladder(group, multiple) for group in graph.groups if group.name in curves}
        self.place = dict.fromkeys(self.ladders, 0)
        widths = {name: len(curves[name].order) for name in self.ladders}
        self._lost = {name: widths[name] - np.array(ladder) for name, ladder in self.ladders.items()}
        self._errors = {
            name: importance.get(name, 1.0) * np.array([curves[name].at(width) for width in ladder])
            for name, ladder in self.ladders.items()
        }
        self._removed: dict[str, int] = {}
        self._steps: dict[str, tuple[float, int, float] | None] = {}
        self.now = float(costs.total)

    def narrow(self) -> bool:
        """Takes the step that costs least for the MACs that it saves; False where no group can go further down."""
        for name in self.ladders:
            if name not in self._steps:
                self._steps[name] = self._step(name)
        found = [(*step, name) for name, step in self._steps.items() if step is not None]
        if not found:
            return False
        _, rung, saved, name = min(found)
        self._move(name, rung, self.now - saved)
        return True

    def widen(self, limit: float) -> None:
        """Gives back what the last step took too much, where it helps most."""
        while True:
            best = None
            for name, rung in self.place.items():
                cost = -float(self._savings(name, [rung - 1])[0]) if rung else 0.0
                if rung and self.now + cost <= limit:
                    gain = float(self._errors[name][rung] - self._errors[name][rung - 1])
                    if best is None or gain / cost > best[0]:
                        best = (gain / cost, name, rung - 1, self.now + cost)
            if best is None or best[0] <= 0:
                return
            self._move(*best[1:])

    def _move(self, name: str, rung: int, macs: float) -> None:
        self.place[name], self.now = rung, macs
        self._removed[name] = int(self._lost[name][rung])
        for other in self.costs.neighbours(name):
            self._steps.pop(other, None)

    def _savings(self, name: str, rungs: Sequence[int]) -> Array:
        """MACs that the steps from here to each of these rungs save."""
        lost: Array = self._lost[name][[self.place[name], *rungs]]
        left = self.costs.along(self._removed, name, lost)
        saved: Array = left[0] - left[1:]
        return saved

    def _step(self, name: str) -> tuple[float, int, float] | None:
        """(error per MAC, rung, MACs saved) of the best step down, of any length."""
        place, errors = self.place[name], self._errors[name]
        rungs = range(place + 1, len(errors))
        steps = [
            (float(errors[rung] - errors[place]) / float(saved), rung, float(saved))
            for rung, saved in zip(rungs, self._savings(name, rungs), strict=True)
            if saved > 0
        ]
        return min(steps, default=None, key=lambda step: step[0])


def _ladder(group: Group, multiple: int) -> list[int]:
    """Widths that the group may take, from its full one down."""
    unit = int(np.lcm(group.multiple_of, multiple)) if group.width >= 2 * multiple else group.multiple_of
    unit *= max(1, group.width // (unit * _STEPS))
    least = max(group.min_keep, 1)
    below = range((group.width - 1) // unit * unit, least - 1, -unit)
    return [group.width, *below] if group.width >= least else [group.width]
