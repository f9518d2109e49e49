"""The samples of a descent in batches of a few calls, each with what the dense network has there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.stats.arrays import Array
from onnxprune.stats.drift import padding
from onnxprune.stats.feeds import Feeds

Call = Mapping[str, Array]

SHARDS = 4  # calls of a batch, at most: enough for a few cores, and few enough to read the weights seldom
_KEPT = 768 << 20  # bytes of dense tensors that are kept; more are computed whenever they are asked for


@dataclass(frozen=True)
class Shard:
    """A part of a batch: a call of the model, the mask over (samples, tokens) where it has one, and the wanted tensors
    by name.
    """

    call: Call
    mask: Array | None
    wanted: Mapping[str, Array]


def shard_size(batch: int) -> int:
    """Samples of a call, where a batch has so many."""
    return -(-batch // SHARDS)


class Batches:
    """Indexable; which samples share a batch of `size` is drawn once with `seed` (None: they stay in their order), so
    that what is `wanted` of a call is computed once, as far as memory goes.

    How a batch is parted does not depend on the machine, so neither does the sum of what its shards yield.
    """

    def __init__(
        self, model: ir.Model, feeds: Feeds, size: int, wanted: Callable[[Call], Mapping[str, Array]], seed: int | None
    ) -> None:
        order = np.arange(len(feeds)) if seed is None else np.random.default_rng(seed).permutation(len(feeds))
        if feeds.padded is not None:  # samples of one length share calls
            order = order[np.argsort(feeds.padded.lengths[order], kind="stable")]
        self._feeds, self._size, self._compute = feeds.take(order), shard_size(size), wanted
        rows = list(self._feeds.call_rows(self._size))
        masks = padding(model, self._feeds, self._size)
        self._calls = [(own, mask) for own, mask in zip(rows, masks, strict=True) if len(own) == len(rows[0])]
        self._together = -(-size // self._size)
        self._kept: dict[int, Mapping[str, Array]] = {}
        self._room = _KEPT

    def __len__(self) -> int:
        return -(-len(self._calls) // self._together)

    def __iter__(self) -> Iterator[list[Shard]]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> list[Shard]:
        first = place * self._together
        return [self._shard(call) for call in range(first, min(first + self._together, len(self._calls)))]

    def _shard(self, place: int) -> Shard:
        rows, mask = self._calls[place]
        call = next(self._feeds.take(rows).calls(self._size))
        wanted = self._kept.get(place)
        if wanted is None:
            wanted = self._compute(call)
            taken = sum(values.nbytes for values in wanted.values())
            if taken <= self._room:
                self._room -= taken
                self._kept[place] = wanted
        return Shard(call, mask, wanted)
