"""How many samples fit in memory at once."""

from __future__ import annotations

import math

from onnxprune import ir
from onnxprune.stats import Feeds
from onnxprune.stats.walk import live_bytes

BYTES = 128 << 20
"""Live activations kept at most."""


def affordable(model: ir.Model, feeds: Feeds, most: int, *, all_at_once: bool = False) -> int:
    """How many samples stay within the budget: from 1 to `most`. `all_at_once`: every activation is kept until the end,
    not only what later nodes still read.
    """
    shapes = ir.shapes_for(model, feeds.call_shapes())
    size = live_bytes(model, shapes)
    if all_at_once:
        constants = ir.initializers(model)
        size = sum(4 * math.prod(shape) for name, shape in shapes.items() if name not in constants)
    return max(1, min(most, BYTES // max(1, size)))
