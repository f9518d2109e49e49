"""A plan seen through the dense network: its levels swapped in, its branches dropped, the shape of the graph unchanged.

Removed columns of every contraction become zero and the others take the closed-form weights of structured OBS (the bias
takes the mean), so no node has to be resized and nothing has to be fitted: a second or less, where compensation takes
its time. Where a weight is quantized, and so has to stay as it is, or belongs to a recurrent layer, the units are
sliced out instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune import ir
from onnxprune.channels import AxisKey, Group
from onnxprune.stats import Product, Statistics
from onnxprune.stats.arrays import Array
from passes.block_removal import Branch, drop
from passes.structured_pruning.apply import delete
from passes.structured_pruning.obs import absorbed

Kept = Sequence[tuple[Group, Array]]
"""Groups with the bool mask of the units that each keeps."""


def stitched(model: ir.Model, statistics: Statistics, kept: Kept, gone: Sequence[Branch] = ()) -> ir.Model:
    """A copy of `model` in which every group keeps only its units and the branches are dropped. `statistics`: of
    `model`.
    """
    copy = model.copy()
    weights = ir.initializers(copy)
    if not swappable(copy, statistics, kept):
        delete(copy, _removed(kept))
    else:
        for node, columns in removed_columns(statistics, kept).items():
            _swap(weights, statistics, node, columns)
    if gone:
        drop(copy, gone)
    return copy


def swappable(model: ir.Model, statistics: Statistics, kept: Kept) -> bool:
    """Whether every group has contractions with float weights that can absorb what leaves, and none with a weight that
    is no matrix product: beside a recurrent layer, zeros elsewhere would leave its states as they are.
    """
    weights = ir.initializers(model)
    for group, _ in kept:
        found = [(statistics.products.get(contraction.node), contraction.tensor) for contraction in group.contractions]
        if any(product is not None and (product.fixed or product.weight not in weights) for product, _ in found):
            return False
        if any(tensor in weights and (product is None or product.weight != tensor) for product, tensor in found):
            return False
        if all(product is None for product, _ in found):
            return False
    return True


def removed_columns(statistics: Statistics, kept: Kept) -> dict[str, Array]:
    """By contraction: which columns (groups, columns) of its matrix lose their unit, over all groups that it reads."""
    gone: dict[str, Array] = {}
    for group, keep in kept:
        for contraction in group.contractions:
            product = statistics.products.get(contraction.node)
            if product is None or product.weight != contraction.tensor:
                continue
            owner = product.column_owner(group.owner[(contraction.tensor, contraction.axis)])
            left = (owner >= 0) & ~keep[owner]
            gone[contraction.node] = gone[contraction.node] | left if contraction.node in gone else left
    return gone


def _removed(kept: Kept) -> dict[AxisKey, Array]:
    found: dict[AxisKey, Array] = {}
    for group, keep in kept:
        for key, owner in group.owner.items():
            indices = np.flatnonzero((owner >= 0) & ~keep[owner])
            if len(indices):
                found[key] = np.union1d(found[key], indices) if key in found else indices
    return found


def _swap(weights: Mapping[str, ir.Constant], statistics: Statistics, node: str, gone: Array) -> None:
    product, moments = statistics.products[node], statistics.moments.get(node)
    if moments is None:
        _zero(weights, product, gone)
    else:
        _absorb(weights, product, gone, moments.covariance(), moments.mean())


def _zero(weights: Mapping[str, ir.Constant], product: Product, gone: Array) -> None:
    weight = weights[product.weight]
    matrix = np.where(gone[:, None, :], 0.0, product.matrix(weight.values))
    weight.values = product.values(matrix, tuple(weight.shape), weight.values.dtype)


def _absorb(weights: Mapping[str, ir.Constant], product: Product, gone: Array, covariance: Array, mean: Array) -> None:
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
