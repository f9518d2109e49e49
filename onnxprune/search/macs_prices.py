"""Prices by multiply-accumulates, as if every operation took the same time: what a search has without a latency table.

They are there to show what the table is worth (`SearchOptions.without`); no command uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import onnx

from onnxprune import ir

SECONDS_EACH = 1e-9
"""Of one multiply-accumulate. Only proportions matter: the search fits what it measures of whole models."""


class Prices(Protocol):
    """Seconds of small models by key, as a `LatencyTable` gives them."""

    def lookup(self, keys: Iterable[str], build: Callable[[str], bytes]) -> dict[str, float]:
        """Seconds by key; what cannot be priced is left out."""


class MacsPrices:
    """Prices that are proportional to multiply-accumulates."""

    def lookup(self, keys: Iterable[str], build: Callable[[str], bytes]) -> dict[str, float]:
        """Seconds by key, from the model that `build` gives; what cannot be built is left out."""
        models = {key: build(key) for key in dict.fromkeys(keys)}
        return {key: SECONDS_EACH * _macs(data) for key, data in models.items() if data}


def _macs(data: bytes) -> int:
    model = ir.from_proto(onnx.load_from_string(data))
    return ir.macs(model, ir.shapes_for(model, {}))
