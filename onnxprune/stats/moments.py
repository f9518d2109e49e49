"""First and second moments of every contraction's columns, streamed: no activation outlives its call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune import ir
from onnxprune.stats.arrays import Array
from onnxprune.stats.columns import Sampler, columns, spatial, values_at
from onnxprune.stats.drift import padding
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.product import Product, products
from onnxprune.stats.row_norms import row_normalised, row_weights
from onnxprune.stats.runner import run
from onnxprune.stats.shrinkage import shrunk

COLUMNS_A_UNKNOWN = 50  # rows collected per column of a matrix: enough for a Gram matrix that generalises
_ROWS_AT_ONCE = 4096  # float32 products are summed over this many rows, then added up in float64
LARGEST = 6144  # a Gram matrix of more columns (300 MB) is not collected


@dataclass
class Moments:
    """Sums over ``count`` columns, one set a group: ``total`` (groups, D) and ``square`` (groups, D, D), float64.

    ``mass``: the sum of the weights of the columns, equal to ``count`` where they count alike. ``samples``: how many
    samples they come from, where that is known.
    """

    count: int = 0
    mass: float = 0.0
    total: Array = field(default_factory=lambda: np.zeros(0))
    square: Array = field(default_factory=lambda: np.zeros(0))
    samples: int | None = None

    def add(self, block: Array, weights: Array | None = None) -> None:
        """Adds columns (groups, rows, D), each with a weight, (rows,), or all alike."""
        if not self.count:
            groups, _, size = block.shape
            self.total, self.square = np.zeros((groups, size)), np.zeros((groups, size, size))
        self.count += block.shape[1]
        self.mass += float(block.shape[1] if weights is None else weights.sum())
        if weights is not None:
            self.total += np.einsum("gnd,n->gd", block, weights, optimize=True)
            block = block * np.sqrt(weights).astype(block.dtype)[None, :, None]
        else:
            self.total += block.sum(1, dtype=np.float64)
        for start in range(0, block.shape[1], _ROWS_AT_ONCE):
            part = block[:, start : start + _ROWS_AT_ONCE]
            for group in range(len(part)):
                self.square[group] += part[group].T @ part[group]

    def mean(self) -> Array:
        """(groups, D)."""
        mean: Array = self.total / max(self.mass, 1e-30)
        return mean

    def covariance(self) -> Array:
        """Second moments about the mean, (groups, D, D): what remains of the error once the bias is free."""
        mean = self.mean()
        centred: Array = self.square / max(self.mass, 1e-30) - mean[:, :, None] * mean[:, None, :]
        return centred

    def shrunk(self) -> Array:
        """The covariance without what so few samples make seem correlated. Columns of one sample are alike: they count
        as the geometric mean of their number and that of the samples.
        """
        samples = self.count if self.samples is None else min(self.samples, self.count)
        return shrunk(self.covariance(), math.sqrt(self.count * samples))


@dataclass(frozen=True)
class Statistics:
    """Moments by product node of one model; products that read the same columns share one object."""

    products: Mapping[str, Product]
    moments: Mapping[str, Moments]


def collect(
    model: ir.Model,
    feeds: Feeds,
    *,
    only: Iterable[str] | None = None,
    rows_a_column: int = COLUMNS_A_UNKNOWN,
    batch: int = 32,
    threads: int = 0,
    seed: int = 0,
) -> Statistics:
    """One pass over ``feeds``. ``only``: node keys to look at (default: every product).

    Columns whose outputs a normalisation divides by their own deviation next are weighed by its inverse square.
    Products of more than ``LARGEST`` columns have no entry in ``moments``.
    """
    found = products(model)
    keys = [key for key in (found if only is None else only) if key in found and found[key].size <= LARGEST]
    classes: dict[Any, str] = {}
    divided = row_normalised(model, {key: found[key] for key in keys})
    representative = {key: classes.setdefault((_geometry(found[key]), divided.get(key)), key) for key in keys}
    moments = {key: Moments(samples=len(feeds)) for key in classes.values()}
    samplers = {key: Sampler(rows_a_column * found[key].size, len(feeds), seed) for key in moments}
    names = sorted({found[key].data for key in moments} | {divided[key] for key in moments if key in divided})
    masks = padding(model, feeds, batch)
    for call, (tensors, mask) in enumerate(
        zip(run(model, feeds, names, batch=batch, threads=threads), masks, strict=True)
    ):
        for key, moment in moments.items():
            data = tensors[found[key].data]
            rows = samplers[key].rows(call, *spatial(found[key], data), mask)
            if len(rows):
                sums = tensors[divided[key]] if key in divided else None
                weights = None if sums is None else row_weights(values_at(sums, found[key].channel_axis, rows))
                moment.add(columns(found[key], data, rows), weights)
    return Statistics(found, {key: moments[representative[key]] for key in keys if moments[representative[key]].count})


def _geometry(product: Product) -> Any:
    """What the columns depend on."""
    return product.data, product.window, product.groups, product.transposed_data, product.op in ("Gemm", "MatMul")
