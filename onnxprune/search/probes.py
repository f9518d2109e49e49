"""What one level of one group does to the network's outputs, with nothing else changed.

The level is swapped in as zeros: removed columns of every contraction become zero and the others take the closed-form
weights of structured OBS (the bias takes the mean), so the graph keeps its shape and no node has to be resized. Where a
weight is quantized, and so has to stay as it is, the units are sliced out instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune import ir
from onnxprune.channels import AxisKey, Group
from onnxprune.search.depth import squared
from onnxprune.stats import Feeds, Product, Statistics, drift, padding, run
from passes.structured_pruning.apply import delete
from passes.structured_pruning.obs import absorbed


class Probes:
    """Holds the dense outputs on `feeds`; call it with a group and the mask of the units it keeps."""

    def __init__(self, model: ir.Model, feeds: Feeds, statistics: Statistics) -> None:
        self._model, self._feeds, self._statistics = model, feeds, statistics
        self._dense = list(run(model, feeds))
        self._masks = list(padding(model, feeds))

    def __call__(self, group: Group, keep: np.ndarray) -> float:
        """Squared relative output error (mean over outputs) when only the units of `keep` are left."""
        return squared(drift(self._dense, run(self._swapped(group, keep), self._feeds), self._masks))

    def _swapped(self, group: Group, keep: np.ndarray) -> ir.Model:
        model = self._model.copy()
        weights = ir.initializers(model)
        found = [self._statistics.products.get(contraction.node) for contraction in group.contractions]
        if any(p is not None and (p.fixed or p.weight not in weights) for p in found):  # no float weight to absorb it
            delete(model, _removed(group, keep))
            return model
        for contraction, product in zip(group.contractions, found, strict=True):
            if product is None or product.weight != contraction.tensor:
                continue
            owner = product.column_owner(group.owner[(contraction.tensor, contraction.axis)])
            gone = (owner >= 0) & ~keep[owner]
            moments = self._statistics.moments.get(contraction.node)
            if moments is None:
                _zero(weights, product, gone)
            else:
                _absorb(weights, product, gone, moments.covariance(), moments.mean())
        return model


def _removed(group: Group, keep: np.ndarray) -> dict[AxisKey, np.ndarray]:
    gone = {key: np.flatnonzero((owner >= 0) & ~keep[owner]) for key, owner in group.owner.items()}
    return {key: indices for key, indices in gone.items() if len(indices)}


def _zero(weights: Mapping[str, ir.Constant], product: Product, gone: np.ndarray) -> None:
    weight = weights[product.weight]
    matrix = np.where(gone[:, None, :], 0.0, product.matrix(weight.values))
    weight.values = product.values(matrix, tuple(weight.shape), weight.values.dtype)


def _absorb(
    weights: Mapping[str, ir.Constant], product: Product, gone: np.ndarray, covariance: np.ndarray, mean: np.ndarray
) -> None:
    weight = weights[product.weight]
    before = product.matrix(weight.values)
    after = np.zeros_like(before)
    for part in range(product.groups):
        kept = np.flatnonzero(~gone[part])
        after[part][:, kept] = absorbed(covariance[part], before[part], kept)
    weight.values = product.values(after, tuple(weight.shape), weight.values.dtype)
    if product.bias is not None and product.bias in weights:
        bias = weights[product.bias]
        shift = np.einsum("god,gd->go", before - after, mean).reshape(-1) / product.bias_factor
        if bias.values.size == shift.size:
            bias.values = (bias.values + shift.reshape(bias.values.shape)).astype(bias.values.dtype)


def picks(levels: Sequence[int]) -> list[int]:
    """The widths worth a probe: about a half and about a quarter of the full one."""
    return sorted({levels[len(levels) // 2], levels[len(levels) // 4]} - {levels[-1]})
