"""Padding left out of the samples, where the model is seen to make nothing of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.drift import drift, is_mask
from onnxprune.stats.feeds import Feeds, Padded
from onnxprune.stats.runner import Runner
from onnxprune.stats.specification import mask_inputs

_TOLERANCE = 1e-3  # relative: sums over fewer terms round differently
_LOOKED_AT = 6  # samples run with and without their padding


def trimmed(feeds: Feeds, model: ir.Model) -> Feeds:
    """The samples from short to long, each call of them as long as its longest one.

    That is so where an attention mask ends every sample in padding, the inputs leave the length open, and the outputs
    at real positions of some samples are the same without padding; else the feeds as they are.
    """
    padded = None if feeds.entries or feeds.synthetic else _padded(feeds, model)
    if padded is None:
        return feeds
    order = np.argsort(padded.lengths, kind="stable")
    shorter = replace(feeds, padded=padded).take(order)
    return shorter if _same(model, feeds.take(order).spread(_LOOKED_AT), shorter.spread(_LOOKED_AT)) else feeds


def _padded(feeds: Feeds, model: ir.Model) -> Padded | None:
    """What a mask with zeros behind ones alone says of the inputs that are as long."""
    for name in mask_inputs(model):
        mask = feeds.arrays[name]
        if is_mask(mask) and bool((mask[:, 0] == 1).all() and (mask[:, :-1] >= mask[:, 1:]).all()):
            names = [tensor.name for tensor in ir.feed_inputs(model) if _is_as_long(tensor, feeds, mask)]
            return Padded(frozenset(names), (mask != 0).sum(1)) if name in names and (mask[:, -1] == 0).any() else None
    return None


def _is_as_long(tensor: ir.Variable, feeds: Feeds, mask: Array) -> bool:
    """Whether the second axis is open and has the length of the mask."""
    dims: tuple[int | str | None, ...] = tuple(tensor.shape or ())
    open_second = len(dims) > 1 and not (isinstance(dims[1], int) and dims[1] > 0)
    return open_second and feeds.arrays[tensor.name].shape[:2] == mask.shape


def _same(model: ir.Model, whole: Feeds, cut: Feeds) -> bool:
    """Whether the outputs agree, sample by sample, where both have a position and over what has none."""
    inputs, outputs = ([tensor.name for tensor in found] for found in (ir.feed_inputs(model), model.graph.outputs))
    runner = Runner(model, outputs, inputs)
    try:
        for full, short in zip(whole.calls(1), cut.calls(1), strict=True):
            after = runner(short)
            before = {name: _until(values, after[name].shape) for name, values in runner(full).items()}
            if not max(drift([before], [after]).values(), default=0.0) <= _TOLERANCE:
                return False
    except ModelError:  # a length that the model does not take, or an output along it that is not its second axis
        return False
    return True


def _until(values: Array, shape: tuple[int, ...]) -> Array:
    """The values without the positions along the second axis that an array of this shape does not have."""
    return values[:, : shape[1]] if len(shape) > 1 else values
