"""How far a changed model's outputs are from the original's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.runner import run
from onnxprune.stats.specification import mask_inputs

Calls = Iterable[Mapping[str, Array]]

LEAST_SPREAD = 0.01


def drift(original_outputs: Calls, new_outputs: Calls, masks: Iterable[Array | None] | None = None) -> dict[str, float]:
    """Relative error of each output over all calls: sqrt(sum |new - original|^2 / sum |original - mean|^2), where the
    mean is that of every element over samples; 0 is equal, 1 as wrong as if every sample had the mean.

    Outputs whose sizes differ between calls, and those of a single sample, have no mean: zero takes its place. Integer,
    boolean and string outputs give the fraction of elements that differ. ``masks``: per call an array (N, T), non-zero
    where a position is real; it hides padding in every output that starts with the axes (N, T). A non-finite new value
    gives inf. Raises ModelError where the outputs differ in name or shape.
    """
    found: dict[str, _Sums] = {}
    for original, new, mask in zip(
        original_outputs, new_outputs, masks if masks is not None else _never(), strict=masks is not None
    ):
        for name, reference in original.items():
            sums = found.setdefault(name, _Sums(reference.dtype.kind == "f"))
            sums.add(*_shown(name, reference, new.get(name), mask))
    return {name: sums.ratio() for name, sums in found.items()}


def _never() -> Iterator[None]:
    while True:
        yield None


def _shown(name: str, reference: Array, found: Array | None, mask: Array | None) -> tuple[Array, Array]:
    """Both arrays without padding."""
    if found is None or found.shape != reference.shape:
        shape = None if found is None else list(found.shape)
        raise ModelError(f"output {name!r} has shape {shape}, expected {list(reference.shape)}")
    if mask is not None and reference.shape[:2] == mask.shape:
        return reference[mask != 0], found[mask != 0]
    return reference, found


@dataclass
class _Sums:
    """What one output has come to. ``energy``: about zero; ``total``: of every element over ``rows`` samples, None
    before the first call and where their sizes differ.
    """

    real: bool
    error: float = 0.0
    energy: float = 0.0
    rows: int = 0
    total: Array | None = None

    def add(self, reference: Array, found: Array) -> None:
        """One call. Where the original is not finite, there is nothing to keep."""
        if not self.real:
            self.error += float(np.count_nonzero(reference != found))
            self.energy += reference.size
            return
        usable = np.isfinite(reference)
        exact = np.where(usable, reference, 0).astype(np.float64)
        change = np.where(usable, found, 0).astype(np.float64) - exact
        self.error += float(np.square(change).sum())
        self.energy += float(np.square(exact).sum())
        self._count(exact if exact.ndim else exact[None])

    def _count(self, values: Array) -> None:
        first, total = not self.rows, values.sum(0)
        self.rows += len(values)
        if first:
            self.total = total
        elif self.total is not None:
            self.total = self.total + total if self.total.shape == total.shape else None

    def ratio(self) -> float:
        """The error by what it is relative to."""
        if not self.real:
            return self.error / max(self.energy, 1.0)
        if not np.isfinite(self.error):
            return float("inf")
        spread = self._spread()
        if spread > 0:
            return float(np.sqrt(self.error / spread))
        return 0.0 if self.error == 0 else float("inf")

    def _spread(self) -> float:
        """The energy about the mean, as of many samples, but no less than a share of that about zero: what hardly
        differs between samples would make rounding look large.
        """
        if self.total is None or self.rows < 2:
            return self.energy
        about = (self.energy - float(np.square(self.total).sum()) / self.rows) * self.rows / (self.rows - 1)
        return min(max(about, LEAST_SPREAD * self.energy), self.energy)


def padding(model: ir.Model, feeds: Feeds, batch: int | None = None) -> Iterator[Array | None]:
    """The attention mask of every call of ``feeds``, as :func:`drift` takes them; None where the model has no such
    input.

    A mask is an input of rank 2 that indexes no table and is one by its values.
    """
    names = [name for name in mask_inputs(model) if is_mask(feeds.arrays[name])]
    for call in feeds.calls(batch):
        yield call[names[0]] if names else None


def is_mask(array: Array) -> bool:
    """Whether the values can mark padding: zeros and ones alone, at least one of them a one."""
    return bool(((array == 0) | (array == 1)).all() and array.any())


def model_drift(
    original: ir.Model,
    new: ir.Model,
    feeds: Feeds,
    *,
    outputs: Sequence[str] | None = None,
    batch: int | None = None,
    threads: int = 0,
) -> dict[str, float]:
    """:func:`drift` of the outputs (or of the tensors ``outputs``) of ``new`` against those of ``original``, both run
    on ``feeds``.
    """
    before = run(original, feeds, outputs, batch=batch, threads=threads)
    after = run(new, feeds, outputs, batch=batch, threads=threads)
    return drift(before, after, padding(original, feeds, batch))
