"""How far a changed model's outputs are from the original's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.runner import run
from onnxprune.stats.specification import mask_inputs

Calls = Iterable[Mapping[str, Array]]


def drift(original_outputs: Calls, new_outputs: Calls, masks: Iterable[Array | None] | None = None) -> dict[str, float]:
    """Relative error of each output over all calls: sqrt(sum |new - original|^2 / sum |original|^2); 0 is equal, 1 as
    wrong as all zeros.

    Integer, boolean and string outputs give the fraction of elements that differ. ``masks``: per call an array (N,
    T), non-zero where a position is real; it hides padding in every output that starts with the axes (N, T). A
    non-finite new value gives inf. Raises ModelError where the outputs differ in name or shape.
    """
    errors: dict[str, float] = {}
    energies: dict[str, float] = {}
    real: dict[str, bool] = {}
    for original, new, mask in zip(
        original_outputs, new_outputs, masks if masks is not None else _never(), strict=masks is not None
    ):
        for name, reference in original.items():
            error, energy = _compare(name, reference, new.get(name), mask)
            errors[name] = errors.get(name, 0.0) + error
            energies[name] = energies.get(name, 0.0) + energy
            real[name] = reference.dtype.kind == "f"
    return {
        name: _ratio(errors[name], energies[name]) if real[name] else errors[name] / max(energies[name], 1.0)
        for name in errors
    }


def _never() -> Iterator[None]:
    while True:
        yield None


def _compare(name: str, reference: Array, found: Array | None, mask: Array | None) -> tuple[float, float]:
    if found is None or found.shape != reference.shape:
        shape = None if found is None else list(found.shape)
        raise ModelError(f"output {name!r} has shape {shape}, expected {list(reference.shape)}")
    if mask is not None and reference.shape[:2] == mask.shape:
        reference, found = reference[mask != 0], found[mask != 0]
    if reference.dtype.kind != "f":
        return float(np.count_nonzero(reference != found)), float(reference.size)
    usable = np.isfinite(reference)  # where the original has none, there is nothing to keep
    exact = np.where(usable, reference, 0).astype(np.float64)
    change = np.where(usable, found, 0).astype(np.float64) - exact
    return float(np.square(change).sum()), float(np.square(exact).sum())


def _ratio(error: float, energy: float) -> float:
    if not np.isfinite(error):
        return float("inf")
    if energy > 0:
        return float(np.sqrt(error / energy))
    return 0.0 if error == 0 else float("inf")


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
