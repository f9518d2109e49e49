"""What was removed, as the oracle reads it: indices by (tensor, axis), from a channel graph's plan or from a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import ModelError

AxisKey = tuple[str, int]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Removed = Mapping[AxisKey, Sequence[int] | npt.NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """Removed slices of the canonical original: sorted unique indices by (tensor name, axis >= 0), no empty entries."""

    removed: Mapping[AxisKey, Indices]

    def keep(self, tensor: str, axis: int, size: int) -> Mask | None:
        """Bool mask of the kept indices of an axis with `size` elements, None when all of them stay.

        Raises ModelError when the plan names an index outside of the axis or leaves nothing of it.
        """
        gone = self.removed.get((tensor, axis))
        if gone is None:
            return None
        if gone[-1] >= size or gone.size >= size:
            raise ModelError(
                f"the plan removes {gone.size} of {size} slices of {tensor}:{axis}, up to index {gone[-1]}"
            )
        mask = np.ones(size, bool)
        mask[gone] = False
        return mask

    def axes(self, tensor: str) -> list[int]:
        """Axes of a tensor that lose slices."""
        return self._axes.get(tensor, [])

    def tensors(self) -> set[str]:
        """Names of all tensors that lose slices."""
        return set(self._axes)

    @cached_property
    def _axes(self) -> dict[str, list[int]]:
        axes: dict[str, list[int]] = {}
        for name, axis in sorted(self.removed):
            axes.setdefault(name, []).append(axis)
        return axes


def plan_of(removed: Removed | Iterable[Mapping[str, Any]]) -> Plan:
    """Reads `ChannelGraph.removals(...)`, or the rows {"tensor", "axis", "indices"} of a report.

    Raises ModelError for negative axes or indices.
    """
    if isinstance(removed, Mapping):
        rows: list[tuple[AxisKey, Any]] = list(removed.items())
    else:
        rows = [((str(row["tensor"]), int(row["axis"])), row["indices"]) for row in removed]
    merged: dict[AxisKey, Indices] = {}
    for key, indices in rows:
        gone = np.unique(np.asarray(indices, np.int64).reshape(-1))
        if key[1] < 0 or (gone.size and gone[0] < 0):
            raise ModelError(f"the plan holds a negative axis or index for {key[0]}:{key[1]}")
        if key in merged:
            gone = np.union1d(merged[key], gone)
        if gone.size:
            merged[key] = gone
    return Plan(merged)
