"""Columns and rows at sampled output positions. Positions are chosen by seed, so that two models are read at the same
ones.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from onnxprune.stats.arrays import Array
from onnxprune.stats.product import Product


@dataclass(frozen=True)
class Sampler:
    """Chooses rows: flat indices over (samples of a call, output positions).

    ``budget``: rows wanted over all samples. ``samples``: how many there are. All tensors of one spatial shape share
    their rows in a call.
    """

    budget: int
    samples: int
    seed: int

    def rows(self, call: int, batch: int, spatial: tuple[int, ...], mask: Array | None = None) -> Array:
        """Sorted int64 rows of call number ``call`` that holds ``batch`` samples; rows that ``mask`` (batch,
        *spatial) marks zero are left out.
        """
        total = batch * math.prod(spatial)
        wanted = math.ceil(self.budget * batch / max(self.samples, 1))
        real = np.arange(total)
        if mask is not None and mask.shape == (batch, *spatial):
            real = np.flatnonzero(mask)
        if wanted >= len(real):
            return real
        key = zlib.crc32(repr((self.seed, call, batch, spatial)).encode())
        return np.sort(np.random.default_rng(key).choice(real, wanted, replace=False))


def spatial(product: Product, data: Array) -> tuple[int, tuple[int, ...]]:
    """Samples in ``data`` and the spatial shape of the product's output for it."""
    if product.window is not None:
        return len(data), product.window.output(data.shape[2:])
    if product.transposed_data:
        return data.shape[1], ()
    return (data.shape[0], data.shape[1:-1]) if data.ndim > 1 else (1, ())


def columns(product: Product, data: Array, rows: Array) -> Array:
    """The product's columns at ``rows`` of its output: (groups, rows, columns), float32, zero where padded."""
    if product.zero:
        data = data.astype(np.float32) - np.float32(product.zero)
    if product.window is None:
        flat = data.T if product.transposed_data else data.reshape(-1, data.shape[-1])
        return np.ascontiguousarray(flat[rows], dtype=np.float32)[None]
    batch, channels = data.shape[:2]
    sizes = data.shape[2:]
    area, out_area = math.prod(sizes), math.prod(product.window.output(sizes))
    pixels: Array = np.ascontiguousarray(data.reshape(batch, channels, area).swapaxes(1, 2)).reshape(
        batch * area, channels
    )
    places, inside = product.window.reads(rows % out_area, sizes)
    patches: Array = pixels[places + (rows // out_area * area)[:, None]]
    patches[~inside] = 0
    if product.groups == 1:
        whole: Array = patches.reshape(1, len(rows), -1).astype(np.float32, copy=False)
        return whole
    split = patches.reshape(len(rows), -1, product.groups, channels // product.groups)
    return np.ascontiguousarray(split.transpose(2, 0, 1, 3).reshape(product.groups, len(rows), -1), dtype=np.float32)


def values_at(tensor: Array, channel_axis: int, rows: Array) -> Array:
    """The channel vectors of ``tensor`` at ``rows``: (rows, channels), float32."""
    last = np.moveaxis(tensor, channel_axis, -1) if tensor.ndim > 1 else tensor[None]
    if channel_axis in (-1, tensor.ndim - 1):
        found: Array = last.reshape(-1, last.shape[-1])[rows].astype(np.float32, copy=False)
        return found
    area = math.prod(last.shape[1:-1])
    flat: Array = tensor.reshape(len(tensor), tensor.shape[1], area)
    picked: Array = flat[rows // area, :, rows % area].astype(np.float32, copy=False)
    return picked
