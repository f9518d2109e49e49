"""Random inputs for a model that came without data: drawn from what its own input specification allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune import ir
from onnxprune.errors import DataError
from onnxprune.stats.arrays import Array
from onnxprune.stats.specification import InputSpec, specifications, vocabulary


def draw(model: ir.Model, n: int, seed: int, shapes: Mapping[str, Sequence[int]]) -> tuple[dict[str, Array], bool]:
    """``n`` samples (axis 0), or ``n`` entries where some input has no batch axis; and which of the two it is.

    Floats are standard normal, indices uniform over the table that they index, other integers one (an attention mask
    that hides nothing), 8-bit integers uniform over their range, booleans true. Raises DataError for an input whose
    type cannot be drawn.
    """
    specs = specifications(model)
    unknown = set(shapes) - {spec.name for spec in specs}
    if unknown:
        raise DataError(f"input shapes name {sorted(unknown)}, the model's inputs are {[spec.name for spec in specs]}")
    rng = np.random.default_rng(seed)
    entries = not _batched(specs)
    tensors = {tensor.name: tensor for tensor in ir.feed_inputs(model)}
    arrays = {}
    for spec in specs:
        size = _shape(spec, shapes.get(spec.name))
        shape = (n, *size) if entries else (max(n, spec.shape[0] or 1) if spec.shape else n, *size[1:])
        arrays[spec.name] = _values(rng, spec, vocabulary(tensors[spec.name]), shape)
    return arrays, entries


def _batched(specs: Sequence[InputSpec]) -> bool:
    """Whether axis 0 of every input can count samples: it exists, and its fixed sizes agree."""
    firsts = {spec.shape[0] for spec in specs if spec.shape}
    return all(spec.shape for spec in specs) and len(firsts) == 1


def _shape(spec: InputSpec, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(size) for size in given)
    if spec.shape is None:
        raise DataError(f"input {spec.name!r} has no shape in the model; give calibration data or an input shape")
    return ir.assumed_shape(spec.shape)


def _values(rng: np.random.Generator, spec: InputSpec, bound: int | None, shape: tuple[int, ...]) -> Array:
    dtype = spec.dtype or np.dtype(np.float32)
    if bound is not None and dtype.kind in "iu":
        return rng.integers(0, bound, shape).astype(dtype)
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        if dtype.itemsize == 1:
            limits = np.iinfo(dtype)
            return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
        return np.ones(shape, dtype)
    raise DataError(f"input {spec.name!r} of type {dtype} cannot be drawn at random; give calibration data")
