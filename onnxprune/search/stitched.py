"""One level of one group swapped into the dense network, the shape of the graph unchanged.

Removed columns of every contraction become zero and the others take the closed-form weights of structured OBS (the bias
takes the mean), so no node has to be resized. Where a weight is quantized, and so has to stay as it is, or belongs to a
recurrent layer, the units are sliced out instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune import ir
from onnxprune.channels import Group
from onnxprune.stats import Product, Statistics
from onnxprune.stats.arrays import Array
from passes.structured_pruning.apply import delete
from passes.structured_pruning.obs import absorbed


def stitched(model: ir.Model, statistics: Statistics, group: Group, keep: Array) -> ir.Model:
    """A copy of `model` in which the group keeps only the units of the bool mask `keep`. `statistics`: of `model`."""
    copy = model.copy()
    weights = ir.initializers(copy)
    if not swappable(copy, statistics, group):
        delete(copy, group.removed(keep))
    else:
        for node, columns in removed_columns(statistics, group, keep).items():
            _swap(weights, statistics, node, columns)
    return copy


def swappable(model: ir.Model, statistics: Statistics, group: Group) -> bool:
    """Whether the group has contractions with float weights that can absorb what leaves, and none with a weight that is
    no matrix product: beside a recurrent layer, zeros elsewhere would leave its states as they are.
    """
    weights = ir.initializers(model)
    found = [(statistics.products.get(contraction.node), contraction.tensor) for contraction in group.contractions]
    if any(product is not None and (product.fixed or product.weight not in weights) for product, _ in found):
        return False
    if any(tensor in weights and (product is None or product.weight != tensor) for product, tensor in found):
        return False
    return any(product is not None for product, _ in found)


def removed_columns(statistics: Statistics, group: Group, keep: Array) -> dict[str, Array]:
    """By contraction: which columns (groups, columns) of its matrix lose their unit."""
    gone: dict[str, Array] = {}
    for contraction in group.contractions:
        product = statistics.products.get(contraction.node)
        if product is not None and product.weight == contraction.tensor:
            owner = product.column_owner(group.owner[(contraction.tensor, contraction.axis)])
            gone[contraction.node] = (owner >= 0) & ~keep[owner]
    return gone


def _swap(weights: Mapping[str, ir.Constant], statistics: Statistics, node: str, gone: Array) -> None:
    product, moments = statistics.products[node], statistics.moments.get(node)
    if moments is None:
        _zero(weights, product, gone)
    else:
        _absorb(weights, product, gone, moments.shrunk(), moments.mean())


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
