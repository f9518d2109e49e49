"""The channel graph of a model: its groups of units, its frozen axes, and what to delete for given keep masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxprune import ir
from onnxprune.channels.collect import Tables, collect
from onnxprune.channels.explain import explain, frozen_axes
from onnxprune.channels.gather import gather
from onnxprune.channels.groups import Frozen, Group
from onnxprune.channels.links import AxisKey, Ints
from onnxprune.channels.shares import Shares, shares
from onnxprune.channels.solve import Solution, solve
from onnxprune.errors import UsageError

GRANULARITIES = ("head", "head_dim")


class ChannelGraph:
    """Groups of coupled units. Tensors are those of the model that was analysed, by name; the graph holds no
    weights.
    """

    def __init__(self, tables: Tables, solution: Solution) -> None:
        self._tables = tables
        self._solution = solution
        self.groups: tuple[Group, ...] = gather(tables, solution)

    @cached_property
    def frozen(self) -> tuple[Frozen, ...]:
        """Producing axes that have elements in no group, with reasons."""
        return frozen_axes(self._tables, self._solution, self.groups)

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    def group(self, name: str) -> Group:
        """The group of this name. UsageError when there is none."""
        if name not in self._by_name:
            near = get_close_matches(str(name), self._by_name, n=3)
            hint = f"; near it are {', '.join(near)}" if near else "; `onnxprune analyze` lists the groups of a model"
            raise UsageError(f"no group {name!r}{hint}")
        return self._by_name[name]

    def explain(self, tensor: str, axis: int) -> list[str]:
        """Why an axis can or cannot be pruned, one step a line. UsageError for an axis that is not there."""
        return explain(self._tables, self._solution, self.groups, (tensor, axis))

    def shares(self, model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Shares:
        """What share of the analysed model's MACs and parameters is prunable, and what keeps the rest.

        `shapes`: concrete ones of all tensors, as `ir.shapes_for` gives them; products of others count nothing.
        """
        return shares(self._tables, self._solution, self.groups, model, shapes)

    def dot(self, shares: Shares) -> str:
        """The groups and the frozen axes as a graph in the DOT language (see `onnxprune.channels.dot`)."""
        from onnxprune.channels.dot import group_graph, to_dot

        return to_dot(group_graph(self._tables, self._solution, self.groups, shares))

    def removals(self, keep: Mapping[str, npt.NDArray[np.bool_]]) -> dict[AxisKey, Ints]:
        """Sorted indices to delete on every axis, activations included.

        `keep` maps a group's name to a bool mask over its units; groups that are absent keep all. UsageError for an
        unknown group, a mask of the wrong length, or one that keeps fewer units than the group's `min_keep`, or no
        multiple of its `multiple_of`.
        """
        parts: dict[AxisKey, list[Ints]] = {}
        for name, mask in keep.items():
            group = self.group(name)
            for key, indices in group.removed(_checked(group, mask)).items():
                parts.setdefault(key, []).append(indices)
        return {key: np.sort(np.concatenate(found)) for key, found in parts.items()}


def analyze(model: ir.Model, *, granularity: str = "head", freeze: str | None = None) -> ChannelGraph:
    """Finds the prunable units of a canonical model whose tensors carry shapes (`ir.infer_shapes`).

    Args:
        model: not changed.
        granularity: what a unit of an attention block is: a whole "head", or one "head_dim" of all heads.
        freeze: a regular expression; tensors and nodes whose names it finds keep all their sizes.

    Raises UsageError for an unknown granularity or a malformed expression.
    """
    if granularity not in GRANULARITIES:
        raise UsageError(f"granularity {granularity!r} is none of {', '.join(GRANULARITIES)}")
    try:
        tables = collect(model, freeze)
    except re.error as error:
        raise UsageError(f"freeze {freeze!r} is not a regular expression: {error}") from None
    return ChannelGraph(tables, solve(tables, granularity))


def _checked(group: Group, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != (group.width,):
        raise UsageError(
            f"the keep mask of {group.name} must be {group.width} booleans, not {array.dtype}{array.shape}"
        )
    if int(array.sum()) < group.min_keep:
        raise UsageError(f"{group.name} must keep at least {group.min_keep} of its {group.width} units")
    if int(array.sum()) % group.multiple_of:
        raise UsageError(f"{group.name} must keep a multiple of {group.multiple_of} of its {group.width} units")
    return array
