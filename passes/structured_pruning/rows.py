"""What is gathered for one fit: rows of a contraction's inputs, of its targets, and of what is added in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.stats import Product
from onnxprune.stats.arrays import Array
from onnxprune.stats.columns import values_at
from passes.structured_pruning.targets import Link


@dataclass(frozen=True)
class Chain:
    """The links between a contraction's outputs and its terminal, on gathered rows (rows, channels)."""

    links: Sequence[Link]
    others: Mapping[str, Array]

    def forward(self, rows: Array) -> Array:
        for link in self.links:
            rows = rows if link.scale is None else rows * link.scale.astype(np.float32)
            rows = rows if link.shift is None else rows + link.shift.astype(np.float32)
            rows = rows if link.other is None else rows + self.others[link.other]
        return rows

    def backward(self, rows: Array) -> Array:
        for link in reversed(self.links):
            rows = rows if link.other is None else rows - self.others[link.other]
            rows = rows if link.shift is None else rows - link.shift.astype(np.float32)
            if link.scale is not None:
                usable = np.abs(link.scale) > 1e-12
                rows = np.where(usable, rows / np.where(usable, link.scale, 1), 0).astype(np.float32)
        return rows


def other_rows(tensor: Array, product: Product, batch: int, places: tuple[int, ...], rows: Array) -> Array:
    """Rows of an added tensor that may be broadcast to the contraction's output."""
    shape = (batch, product.outputs, *places) if product.window is not None else (batch, *places, product.outputs)
    return values_at(np.broadcast_to(tensor, shape) if tensor.shape != shape else tensor, product.channel_axis, rows)


def held_out_rows(counts: Sequence[int], share: float) -> Array | None:
    """Rows that choose the ridge, from the rows of each call: whole calls where there are enough, else the ends."""
    if not share:
        return None
    every = max(round(1 / share), 2)
    if len(counts) >= 2 * every:
        return np.repeat(np.arange(len(counts)) % every == 1, counts)
    return np.concatenate([np.arange(count) >= round(count * (1 - share)) for count in counts])


def joined(y: Array) -> Array:
    """(groups, rows, outputs) to (rows, groups * outputs)."""
    return y.swapaxes(0, 1).reshape(y.shape[1], -1)


def split(rows: Array, groups: int) -> Array:
    """The inverse of :func:`joined`."""
    return rows.reshape(len(rows), groups, -1).swapaxes(0, 1)


def relative_error(project: Callable[[Array], Array], y: Array) -> float:
    """Squared distance of predictions to acceptable targets, relative to the targets' variance."""
    wanted = project(y)
    variance = float(np.square(wanted - wanted.mean(1, keepdims=True)).sum(dtype=np.float64))
    return float(np.square(wanted - y).sum(dtype=np.float64)) / max(variance, 1e-30)
