"""What one level of one group does to the network's outputs, with nothing else changed.

Nothing in front of a change moves, so a probe starts from the dense tensors at the first contraction that it changes;
probes asked for in the order of the graph compute each of these tensors once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxprune import ir
from onnxprune.channels import Group
from onnxprune.search.depth import squared
from onnxprune.search.stitched import removed_columns, stitched, swappable
from onnxprune.stats import Feeds, Statistics, drift, padding, run
from onnxprune.stats.arrays import Array
from onnxprune.stats.walk import Walk

BATCH = 32  # samples a call where the model's batch is dynamic


class Probes:
    """Holds the dense outputs on `feeds`; call it with a group and the mask of the units it keeps.

    `model` and `statistics` are in the form that statistics see.
    """

    def __init__(self, model: ir.Model, feeds: Feeds, statistics: Statistics) -> None:
        self._model, self._feeds, self._statistics = model, feeds, statistics
        self._dense = list(run(model, feeds, batch=BATCH))
        self._masks = list(padding(model, feeds, BATCH))
        self._places = {ir.node_key(node): place for place, node in enumerate(model.graph.nodes)}
        self._walk, self._reached = Walk(model, feeds, batch=BATCH), 0

    def __call__(self, group: Group, keep: np.ndarray) -> float:
        """Squared relative output error (mean over outputs) when only the units of `keep` are left."""
        changed = stitched(self._model, self._statistics, group, keep)
        return squared(drift(self._dense, self._outputs(changed, group), self._masks))

    def first_change(self, group: Group) -> int:
        """Place in the graph of the first contraction that losing units changes; 0 where that cannot be told."""
        nodes = removed_columns(self._statistics, group, np.ones(group.width, bool))
        return min((self._places.get(node, 0) for node in nodes), default=0)

    def error(self, changed: ir.Model) -> float:
        """Squared relative output error of any model with the same inputs and outputs."""
        return squared(drift(self._dense, run(changed, self._feeds, batch=BATCH), self._masks))

    def _outputs(self, changed: ir.Model, group: Group) -> Iterator[Mapping[str, Array]]:
        place = self.first_change(group)
        if not place or not swappable(self._model, self._statistics, group):  # sliced: shapes change earlier
            return run(changed, self._feeds, batch=BATCH)
        return self._behind(changed, place)

    def _behind(self, changed: ir.Model, place: int) -> Iterator[Mapping[str, Array]]:
        """Outputs of `changed`, which is the dense network before the node at `place`."""
        if place < self._reached:
            self._walk = Walk(self._model, self._feeds, batch=BATCH)
        self._reached = place
        product = self._statistics.products[ir.node_key(self._model.graph.nodes[place])]
        walk = self._walk.fork(changed, product.data)
        if walk is None:
            yield from run(changed, self._feeds, batch=BATCH)
            return
        ahead = [name for name in self._dense[0] if walk.is_ahead(name)]
        for dense, tensors in zip(self._dense, walk.advance(ahead), strict=True):
            yield {**dense, **tensors}


def picks(levels: Sequence[int]) -> list[int]:
    """The widths worth a probe: about a half and about a quarter of the full one."""
    return sorted({levels[len(levels) // 2], levels[len(levels) // 4]} - {levels[-1]})
