"""Widths under a budget: where to remove how much, from the error curves of all groups together."""

from __future__ import annotations

from collections.abc import Mapping
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
    """One weight axis: its size, and how many of its elements each unit of each group owns."""

    size: int
    owned: Mapping[str, Array]

    def fraction(self, removed: Mapping[str, Array]) -> float:
        """Share of the axis that is left."""
        gone = sum(float(self.owned[name][units].sum()) for name, units in removed.items() if name in self.owned)
        return 1.0 - gone / self.size


class MacsModel:
    """MACs of the model as a function of what is removed from every group.

    Exact for contractions: the MACs of a node are those of the dense one times the share that is left of its weight's
    input and output axes.
    """

    def __init__(self, model: ir.Model, graph: ChannelGraph, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._nodes: list[tuple[int, list[_Axis]]] = []
        self.by_group: dict[str, list[int]] = {group.name: [] for group in graph.groups}
        touching: dict[str, list[Group]] = {}
        for group in graph.groups:
            for name in {name for name, _ in group.owner}:
                touching.setdefault(name, []).append(group)
        for node, times in ir.repeated_nodes(model, shapes):
            for macs, weight in ir.macs_by_weight(node, shapes):
                self._add(weight or _computed(node), times * macs, touching)
        self.total = sum(macs for macs, _ in self._nodes)

    def _add(self, weight: ir.Constant | ir.Variable | None, macs: int, touching: Mapping[str, list[Group]]) -> None:
        axes: list[_Axis] = []
        if weight is None:
            self._nodes.append((macs, axes))
            return
        groups = touching.get(weight.name, [])
        for axis in range(len(weight.shape)):
            owned = {
                group.name: np.bincount(owner[owner >= 0], minlength=group.width)
                for group in groups
                if (owner := group.owner.get((weight.name, axis))) is not None
            }
            if owned:
                axes.append(_Axis(weight.shape[axis], owned))
        for name in {name for axis in axes for name in axis.owned}:
            self.by_group[name].append(len(self._nodes))
        self._nodes.append((macs, axes))

    def neighbours(self, name: str) -> set[str]:
        """Groups whose MACs depend on the width of this one, itself included."""
        axes = [axis for place in self.by_group[name] for axis in self._nodes[place][1]]
        return {name} | {other for axis in axes for other in axis.owned}

    def macs(self, removed: Mapping[str, Array], only: str | None = None) -> float:
        """Of the whole model, or of the nodes that the group ``only`` touches; ``removed``: unit indices by group
        name.
        """
        nodes = self._nodes if only is None else [self._nodes[place] for place in self.by_group[only]]
        return sum(macs * float(np.prod([axis.fraction(removed) for axis in axes])) for macs, axes in nodes)


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
    search = _Search(graph, curves, MacsModel(model, graph, shapes), importance or {}, multiple)
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
        self.curves, self.costs, self._importance = curves, costs, importance
        self.ladders = {group.name: _ladder(group, multiple) for group in graph.groups if group.name in curves}
        self.place = dict.fromkeys(self.ladders, 0)
        self._removed: dict[str, Array] = {}
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
                cost = self._saving(name, rung - 1) if rung else 0.0  # negative: wider is more
                if rung and self.now - cost <= limit:
                    gain = self._error(name, rung) - self._error(name, rung - 1)
                    if best is None or gain / -cost > best[0]:
                        best = (gain / -cost, name, rung - 1, self.now - cost)
            if best is None or best[0] <= 0:
                return
            self._move(*best[1:])

    def _move(self, name: str, rung: int, macs: float) -> None:
        self.place[name], self.now = rung, macs
        self._removed[name] = self._units(name, rung)
        for other in self.costs.neighbours(name):
            self._steps.pop(other, None)

    def _units(self, name: str, rung: int) -> Array:
        order = self.curves[name].order
        return order[: len(order) - self.ladders[name][rung]]

    def _error(self, name: str, rung: int) -> float:
        return self._importance.get(name, 1.0) * self.curves[name].at(self.ladders[name][rung])

    def _saving(self, name: str, rung: int) -> float:
        changed = {**self._removed, name: self._units(name, rung)}
        return self.costs.macs(self._removed, name) - self.costs.macs(changed, name)

    def _step(self, name: str) -> tuple[float, int, float] | None:
        """(error per MAC, rung, MACs saved) of the best step down, of any length."""
        place = self.place[name]
        best = None
        for rung in range(place + 1, len(self.ladders[name])):
            saved = self._saving(name, rung)
            if saved > 0:
                price = (self._error(name, rung) - self._error(name, place)) / saved
                best = (price, rung, saved) if best is None or price < best[0] else best
        return best


def _ladder(group: Group, multiple: int) -> list[int]:
    """Widths that the group may take, from its full one down."""
    unit = int(np.lcm(group.multiple_of, multiple)) if group.width >= 2 * multiple else group.multiple_of
    unit *= max(1, group.width // (unit * _STEPS))
    least = max(group.min_keep, 1)
    below = range((group.width - 1) // unit * unit, least - 1, -unit)
    return [group.width, *below] if group.width >= least else [group.width]
