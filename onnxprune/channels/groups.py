"""Units that leave together, gathered into groups, and the axes that are frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.channels.links import AxisKey, Ints


@dataclass(frozen=True)
class Contraction:
    """A weight axis that is summed away. `tensor` is the second activation in a product of two."""

    node: str
    tensor: str
    axis: int


class Owner(Mapping[AxisKey, Ints]):
    """For each axis of a group the unit of each element, -1 where the element is not the group's. Computed on
    demand.
    """

    def __init__(self, axes: Mapping[AxisKey, int], labels: Mapping[int, Ints], members: Ints) -> None:
        """`axes` maps axis to strand, `labels` strand to class per element, `members` are the group's classes by
        unit.
        """
        self._axes = axes
        self._labels = labels
        self._order = np.argsort(members, kind="stable")
        self._sorted = members[self._order]
        self._cache: dict[int, Ints] = {}

    @property
    def classes(self) -> Ints:
        """The classes of the group's units, sorted."""
        return self._sorted

    @property
    def units(self) -> Ints:
        """The unit of each of `classes`."""
        return self._order

    def leaving(self, least: int) -> dict[AxisKey, int]:
        """How many elements leave each axis when the first `least` units stay."""
        counts: dict[int, int] = {}
        for key, strand in self._axes.items():
            if strand not in counts:
                counts[strand] = int(np.count_nonzero(self[key] >= least))
        return {key: counts[strand] for key, strand in self._axes.items()}

    def __getitem__(self, key: AxisKey) -> Ints:
        strand = self._axes[key]
        if strand not in self._cache:
            labels = self._labels[strand]
            place = np.minimum(np.searchsorted(self._sorted, labels), len(self._sorted) - 1)
            owner = np.where(self._sorted[place] == labels, self._order[place], -1).astype(np.int64)
            owner.flags.writeable = False
            self._cache[strand] = owner
        return self._cache[strand]

    def __iter__(self) -> Iterator[AxisKey]:
        return iter(self._axes)

    def __len__(self) -> int:
        return len(self._axes)


@dataclass(frozen=True)
class Group:
    """Units that touch the same axes: they can be ranked against each other and removed in any number.

    name: `tensor:axis` of the first producer (with `#2`, `#3` where several groups share it).
    kind: channel, neuron, hidden (of a recurrent layer), head, query_head, head_dim or embedding.
    width: number of units.
    owner: for every axis the group touches, weights and activations, the unit of each element or -1.
    producers: weight axes that make the units; contractions: weight axes that sum them away.
    exact: whether removing a unit equals masking it; False where a formula holds the number of units.
    min_keep, multiple_of: limits on the number of units that stay.
    """

    name: str
    kind: str
    width: int
    owner: Owner
    producers: tuple[AxisKey, ...]
    contractions: tuple[Contraction, ...]
    exact: bool
    min_keep: int = 1
    multiple_of: int = 1

    def removed(self, keep: npt.NDArray[np.bool_]) -> dict[AxisKey, Ints]:
        """Sorted indices that leave with the units that are False in `keep` (one bool a unit), by axis."""
        if keep.all():  # owners are computed on demand
            return {}
        gone = {key: np.flatnonzero((owner >= 0) & ~keep[owner]) for key, owner in self.owner.items()}
        return {key: indices for key, indices in gone.items() if len(indices)}


@dataclass(frozen=True)
class Frozen:
    """Elements of a producing axis that cannot be pruned: how many, why, and the way to the cause."""

    axis: AxisKey
    size: int
    reason: str
    chain: tuple[str, ...]
