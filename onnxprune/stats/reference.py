"""What the dense network has at the sampled positions: the targets that compensation steers to, collected once and
asked often.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxprune import ir
from onnxprune.errors import FileSystemError, ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.columns import Sampler, values_at
from onnxprune.stats.drift import padding
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.moments import COLUMNS_A_UNKNOWN
from onnxprune.stats.product import Product, products
from onnxprune.stats.runner import run
from onnxprune.stats.walk import live_bytes

_IN_MEMORY = 320 << 20  # bytes of rows kept in memory; more goes to a temporary directory

_UNKNOWN_SIZE = 256  # samples walked through a model whose sizes cannot be foretold


class Reference:
    """Rows of tensors of ``model`` over ``feeds``, at positions that depend only on the seed, the call and the
    spatial shape.

    ``rows_a_column``: rows wanted for each column of the largest product on a spatial shape. All calls use ``batch``
    samples, so a second model that is run with the same feeds and batch can be read at the same positions through
    :meth:`rows`.
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Feeds,
        *,
        rows_a_column: int = COLUMNS_A_UNKNOWN,
        batch: int = 32,
        seed: int = 0,
        threads: int = 0,
        memory: int = _IN_MEMORY,
    ) -> None:
        feeds = bounded(model, feeds, memory)
        self.model, self.feeds, self.batch, self.threads, self.seed = model, feeds, batch, threads, seed
        self.products: dict[str, Product] = products(model)
        self._masks = list(padding(model, feeds, batch))
        self._budgets = _budgets(self.products, model, feeds, batch, threads, rows_a_column)
        self._memory, self._held = memory, 0
        self._parts: dict[str, list[Array | Path]] = {}
        self._directory: Path | None = None

    def rows(self, call: int, batch: int, spatial: tuple[int, ...]) -> Array:
        """The sampled rows of call number ``call`` on this spatial shape, as flat indices over (batch, *spatial)."""
        budget = self._budgets.get(spatial)
        if budget is None:
            alike = [value for shape, value in self._budgets.items() if len(shape) == len(spatial)]
            budget = max(alike, default=0) or max(self._budgets.values(), default=0)
        return Sampler(budget, len(self.feeds), self.seed).rows(call, batch, spatial, self._masks[call])

    def fetch(self, axes: Mapping[str, int]) -> None:
        """Collects the tensors named in ``axes`` (tensor -> channel axis) that are not there yet, in one pass over
        the feeds.
        """
        missing = {name: axis for name, axis in axes.items() if name not in self._parts}
        if not missing:
            return
        for call, found in enumerate(
            run(self.model, self.feeds, list(missing), batch=self.batch, threads=self.threads)
        ):
            for name, axis in missing.items():
                tensor = found[name]
                self._put(name, call, values_at(tensor, axis, self.rows(call, *grid(tensor, axis))))

    def at(self, name: str, call: int) -> Array:
        """Rows of a fetched tensor in one call: (rows, channels), float32."""
        part = self._parts[name][call]
        return np.load(part) if isinstance(part, Path) else part

    def _put(self, name: str, call: int, rows: Array) -> None:
        parts = self._parts.setdefault(name, [])
        if self._held + rows.nbytes <= self._memory:
            self._held += rows.nbytes
            parts.append(rows)
            return
        try:
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="onnxprune-"))
                weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
            path = self._directory / f"{list(self._parts).index(name)}-{call}.npy"
            np.save(path, rows)
        except OSError as error:
            raise FileSystemError(f"no room for temporary files in {tempfile.gettempdir()}: {error.strerror}") from None
        parts.append(path)


def bounded(model: ir.Model, feeds: Feeds, memory: int = _IN_MEMORY) -> Feeds:
    """As many of the samples, evenly spaced, as can be walked through ``model`` within ``memory`` bytes; at least
    one.
    """
    try:
        shapes = ir.shapes_for(model, feeds.call_shapes())
        size = max(live_bytes(model, shapes, products(model)) // (feeds.fixed_batch or 1), 1)
        limit = max(memory // size, 1)
    except ModelError:  # sizes that only the values of the inputs decide
        limit = _UNKNOWN_SIZE
    return feeds.spread(limit)


def grid(tensor: Array, channel_axis: int) -> tuple[int, tuple[int, ...]]:
    """Samples and spatial shape of a tensor whose channels lie along ``channel_axis``."""
    if tensor.ndim == 1:
        return 1, ()
    axis = channel_axis % tensor.ndim
    return len(tensor), tuple(size for place, size in enumerate(tensor.shape) if place not in (0, axis))


def _budgets(
    found: Mapping[str, Product], model: ir.Model, feeds: Feeds, batch: int, threads: int, rows_a_column: int
) -> dict[tuple[int, ...], int]:
    """Rows wanted on each spatial shape that the first call shows."""
    budgets: dict[tuple[int, ...], int] = {}
    if not found:
        return budgets
    first = feeds.spread(1)
    tensors = next(run(model, first, [product.output for product in found.values()], batch=batch, threads=threads))
    for product in found.values():
        _, spatial = grid(tensors[product.output], product.channel_axis)
        budgets[spatial] = max(budgets.get(spatial, 0), rows_a_column * product.size)
    return budgets
