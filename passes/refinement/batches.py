"""The samples of a descent in calls of one size, each with what the dense network has there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.stats.arrays import Array
from onnxprune.stats.drift import padding
from onnxprune.stats.feeds import Feeds

Call = Mapping[str, Array]

_KEPT = 768 << 20  # bytes of dense tensors that are kept; more are computed whenever they are asked for


@dataclass(frozen=True)
class Batch:
    """A call of the model, the mask over (samples, tokens) where it has one, and the wanted tensors by name."""

    call: Call
    mask: Array | None
    wanted: Mapping[str, Array]


class Batches:
    """Indexable; which samples share a call is drawn once with `seed` (None: they stay in their order), so that what is
    `wanted` of a call is computed once, as far as memory goes.
    """

    def __init__(
        self, model: ir.Model, feeds: Feeds, size: int, wanted: Callable[[Call], Mapping[str, Array]], seed: int | None
    ) -> None:
        order = np.arange(len(feeds)) if seed is None else np.random.default_rng(seed).permutation(len(feeds))
        if feeds.padded is not None:  # samples of one length share calls
            order = order[np.argsort(feeds.padded.lengths[order], kind="stable")]
        self._feeds, self._size, self._compute = feeds.take(order), size, wanted
        rows = list(self._feeds.call_rows(size))
        masks = padding(model, self._feeds, size)
        self._calls = [(own, mask) for own, mask in zip(rows, masks, strict=True) if len(own) == len(rows[0])]
        self._kept: dict[int, Mapping[str, Array]] = {}
        self._room = _KEPT

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Batch]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Batch:
        rows, mask = self._calls[place]
        call = next(self._feeds.take(rows).calls(self._size))
        wanted = self._kept.get(place)
        if wanted is None:
            wanted = self._compute(call)
            taken = sum(values.nbytes for values in wanted.values())
            if taken <= self._room:
                self._room -= taken
                self._kept[place] = wanted
        return Batch(call, mask, wanted)
