"""Coordinates in which the columns that a weight multiplies are white: there steps along all directions change the
outputs alike.

The curvature of a squared error over the weights of a contraction is, but for what comes after it, the second moment H
of its columns (the factor A of K-FAC, Martens and Grosse 2015, arXiv 1503.05671). With V = W H^(1/2) the gradient is
dV = dW H^(-1/2), and a step of V is one of W times H^(-1/2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.stats import Feeds, Product, collect
from onnxprune.stats.arrays import Array

DAMPING = 0.01  # of the mean second moment, added to each
_LARGEST = 2304  # columns whose square root is still cheap
_ROWS_A_COLUMN = 12
_SAMPLES = 256


@dataclass(frozen=True)
class Basis:
    """``inverse`` and ``root``: H^(-1/2) and H^(1/2), (groups, columns, columns)."""

    product: Product
    inverse: Array
    root: Array

    def __call__(self, values: Array) -> Array:
        """From a gradient to that of the white coordinates, and from a step of these to one of the weight."""
        turned = self.product.matrix(values).astype(np.float32) @ self.inverse
        return self.product.values(turned, values.shape, np.dtype(np.float32))

    def size(self, weight: Array) -> float:
        """Root mean square of the white coordinates of a weight."""
        return float(np.sqrt(np.square(self.product.matrix(weight) @ self.root).mean()))


def bases(
    model: ir.Model, names: Collection[str], feeds: Feeds, *, batch: int, seed: int, threads: int
) -> dict[str, Basis]:
    """White coordinates of each weight among ``names`` that one contraction reads."""
    few = feeds.spread(_SAMPLES)
    found = collect(model, few, rows_a_column=_ROWS_A_COLUMN, batch=batch, threads=threads, seed=seed)
    tensors = ir.tensors(model)
    return {
        product.weight: _basis(product, found.moments[key].square / max(found.moments[key].mass, 1e-30))
        for key, product in found.products.items()
        if key in found.moments
        and product.weight in names
        and product.size <= _LARGEST
        and len(tensors[product.weight].outputs) == 1
    }


def _basis(product: Product, second: Array) -> Basis:
    """``second``: moments about zero, (groups, columns, columns)."""
    size = second.shape[-1]
    damping = DAMPING * np.einsum("gdd->gd", second).mean(1)[:, None] + 1e-20
    values, vectors = np.linalg.eigh(second + damping[:, :, None] * np.eye(size))
    root = np.sqrt(np.maximum(values, damping))[:, None, :]
    turned = vectors.swapaxes(1, 2)
    inverse = ((vectors / root) @ turned).astype(np.float32)  # of all steps; twice as fast as in doubles
    return Basis(product, inverse, (vectors * root) @ turned)
