"""Calibration input: checked once against the model's inputs, then handed out call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, overload

import numpy as np

from onnxprune import ir
from onnxprune.errors import DataError
from onnxprune.stats.arrays import Array, read
from onnxprune.stats.specification import InputSpec, specifications
from onnxprune.stats.synthetic import draw

_MEASURED = 8
_CHECKED_AT_ONCE = 1 << 24  # elements looked at together for NaN, so that a memory-mapped file never has to fit


class Draw(Protocol):
    """``Feeds.synthetic``: ``n`` random samples from the model's own input specification; ``shapes`` fixes dynamic
    sizes by input name.
    """

    def __call__(
        self, model: ir.Model, n: int, seed: int, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> Feeds: ...


class _Synthetic:
    """One name for two things: the constructor on the class, and on an object whether it was made so."""

    @overload
    def __get__(self, feeds: None, owner: type[Feeds]) -> Draw: ...
    @overload
    def __get__(self, feeds: Feeds, owner: type[Feeds]) -> bool: ...
    def __get__(self, feeds: Feeds | None, owner: type[Feeds]) -> Draw | bool:
        return _draw if feeds is None else feeds.drawn


def _draw(model: ir.Model, n: int, seed: int, shapes: Mapping[str, Sequence[int]] | None = None) -> Feeds:
    arrays, entries = draw(model, n, seed, shapes or {})
    return Feeds(arrays, entries, None if entries else _fixed_batch(specifications(model)), drawn=True)


@dataclass(frozen=True)
class Padded:
    """What is padding in samples: the inputs `names` carry it along axis 1, behind as many positions as `lengths` says
    of each sample. A call leaves out what is padding in all of its samples, up to a multiple of `STEP`: few lengths
    mean few shapes that a runtime has to plan for.
    """

    STEP: ClassVar[int] = 16

    names: frozenset[str]
    lengths: Array

    def cut(self, call: Mapping[str, Array], rows: np.ndarray) -> dict[str, Array]:
        """The call of these samples, shorter where all of them end in padding."""
        longest = -(-int(self.lengths[rows].max()) // self.STEP) * self.STEP
        return {name: array[:, :longest] if name in self.names else array for name, array in call.items()}

    def take(self, rows: np.ndarray) -> Padded:
        """Of the samples at `rows`."""
        return Padded(self.names, self.lengths[rows])


@dataclass(frozen=True)
class Feeds:
    """Arrays for every graph input, in one of two forms.

    *Samples*: the rank of each array is its input's rank, and axis 0 counts samples. *Entries*: each array has one
    axis more, and each index along it is one call of the model. On the class ``synthetic(model, n, seed)`` draws
    feeds; on feeds ``synthetic`` says that they were drawn.
    """

    synthetic: ClassVar[_Synthetic] = _Synthetic()

    arrays: Mapping[str, Array]
    entries: bool = False
    fixed_batch: int | None = None
    drawn: bool = False
    padded: Padded | None = None

    @staticmethod
    def load(path: str | Path, model: ir.Model) -> Feeds:
        """From an ``.npz`` file or a directory of ``.npy``/``.npz`` files; raises DataError where they do not fit
        ``model``.
        """
        return Feeds.from_arrays(read(Path(path)), model)

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array], model: ir.Model) -> Feeds:
        """Checks names, ranks, shapes, dtypes, values and lengths against the inputs of ``model``; raises DataError.

        float32 data for a float16 or bfloat16 input is rounded to that type.
        """
        specs = specifications(model)
        _check_names(arrays, specs)
        arrays = {spec.name: _in_half(arrays[spec.name], spec) for spec in specs}
        entries = _check_ranks(arrays, specs)
        for spec in specs:
            _check_array(arrays[spec.name], spec, entries)
        lengths = {spec.name: len(arrays[spec.name]) for spec in specs if entries or spec.rank}
        if len(set(lengths.values())) > 1:
            raise DataError(f"calibration inputs differ in length: {_listing(lengths)}")
        if lengths and not next(iter(lengths.values())):
            raise DataError("calibration data is empty: no sample in it")
        fixed = None if entries else _fixed_batch(specs)
        if fixed is not None and lengths and next(iter(lengths.values())) < fixed:
            raise DataError(
                f"the model takes batches of {fixed} samples, the calibration data has {next(iter(lengths.values()))}"
            )
        return Feeds({spec.name: arrays[spec.name] for spec in specs}, entries, fixed)

    def __len__(self) -> int:
        """Number of samples, or of entries."""
        return max((len(array) for array in self._counted().values()), default=1)

    def _counted(self) -> dict[str, Array]:
        return {name: array for name, array in self.arrays.items() if array.ndim}

    def calls(self, batch: int | None = None) -> Iterator[dict[str, Array]]:
        """One dict a call of the model: an entry, or the model's fixed batch, or ``batch`` samples (default 32) where
        it is dynamic.

        A remainder smaller than a fixed batch is left out, except where it is all there is: then it is repeated to
        fill the batch.
        """
        for rows in self.call_rows(batch):
            if self.entries:
                yield {name: np.asarray(array[rows[0]]) for name, array in self.arrays.items()}
                continue
            call = {name: np.asarray(array[rows] if array.ndim else array) for name, array in self.arrays.items()}
            yield call if self.padded is None else self.padded.cut(call, rows)

    def call_rows(self, batch: int | None = None) -> Iterator[np.ndarray]:
        """The indices of the samples (or of the one entry) that each call of :meth:`calls` feeds, int64 each."""
        count = len(self)
        if self.entries:
            yield from (np.array([k]) for k in range(count))
        elif self.fixed_batch is not None:
            step = self.fixed_batch
            for start in range(0, max(count - step, 0) + 1, step):
                yield np.arange(start, start + step) % count
        else:
            step = max(1, batch or 32)
            for start in range(0, count, step):
                yield np.arange(start, min(start + step, count))

    def call_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs in a call of one sample, one of mean length where padding is left out, or of the
        model's fixed batch.
        """
        lengths = np.zeros(1) if self.padded is None else self.padded.lengths
        usual = int(np.abs(lengths - lengths.mean()).argmin())
        return {name: array.shape for name, array in next(self.take([usual]).calls(1)).items()}

    def take(self, indices: Sequence[int] | np.ndarray) -> Feeds:
        """The samples (or entries) at ``indices``, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        arrays = {name: array[rows] if array.ndim else array for name, array in self.arrays.items()}
        padded = None if self.padded is None else self.padded.take(rows)
        return Feeds(arrays, self.entries, self.fixed_batch, self.drawn, padded)

    def first(self, most: int) -> Feeds:
        """The first ``most`` samples (or entries), or all where there are fewer."""
        return self.take(range(min(len(self), most)))

    def measured(self) -> Mapping[str, Array]:
        """The arrays that latency is measured on: of a few samples, which repeat."""
        return self.first(_MEASURED).arrays

    def spread(self, most: int) -> Feeds:
        """All samples (or entries), or ``most`` of them, evenly spaced, where there are more."""
        count = len(self)
        return self if count <= most else self.take(np.linspace(0, count - 1, most).round().astype(np.int64))

    def split(self, fraction: float, seed: int) -> tuple[Feeds, Feeds]:
        """Two disjoint parts drawn with ``seed``: the first holds about ``fraction`` of the samples, both hold at
        least one.

        With a single sample both parts are that sample.
        """
        count = len(self)
        if count == 1:
            return self, self
        order = np.random.default_rng(seed).permutation(count)
        first = min(max(round(count * fraction), 1), count - 1)
        return self.take(np.sort(order[:first])), self.take(np.sort(order[first:]))


def _listing(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in list(values.items())[:6])


def _check_names(arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> None:
    expected, found = {spec.name for spec in specs}, set(arrays)
    if expected != found:
        raise DataError(f"calibration arrays must be named {sorted(expected)}, found {sorted(found)[:8]}")


def _check_ranks(arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> bool:
    """True where the arrays hold one entry a call, False where they hold samples."""
    known = [spec for spec in specs if spec.shape is not None]
    if all(arrays[spec.name].ndim == spec.rank for spec in known):
        return False
    if all(arrays[spec.name].ndim == spec.rank + 1 for spec in known):
        return True
    wrong = next(spec for spec in known if arrays[spec.name].ndim != spec.rank)
    raise DataError(
        f"calibration input {wrong.name!r} must be of rank {wrong.rank} (samples along axis 0) or, "
        f"as all others then, of rank {wrong.rank + 1} (one entry a call); found shape {list(arrays[wrong.name].shape)}"
    )


def _check_array(array: Array, spec: InputSpec, entries: bool) -> None:
    if spec.dtype is not None and not _same_dtype(array.dtype, spec.dtype):
        raise DataError(f"calibration input {spec.name!r} must be {spec.dtype}, found {array.dtype}")
    dims = spec.shape or ()
    found = array.shape[1:]
    expected = dims if entries else dims[1:]
    if spec.shape is not None and any(
        size is not None and size != got for size, got in zip(expected, found, strict=True)
    ):
        wanted = ", ".join("?" if size is None else str(size) for size in expected)
        raise DataError(f"calibration input {spec.name!r} must be of shape [*, {wanted}], found {list(array.shape)}")
    if 0 in array.shape:
        raise DataError(f"calibration input {spec.name!r} is empty: its shape is {list(array.shape)}")
    if array.dtype.kind in "fc" and not _finite(array):
        raise DataError(f"calibration input {spec.name!r} holds NaN or infinite values")


def _in_half(array: Array, spec: InputSpec) -> Array:
    """float32 data in the half precision that an input declares; files of arrays cannot hold bfloat16."""
    half = spec.dtype is not None and spec.dtype.name in ("float16", "bfloat16")
    return array.astype(spec.dtype) if half and array.dtype == np.float32 else array


def _same_dtype(found: np.dtype, expected: np.dtype) -> bool:
    return found == expected or (expected.kind in "OUS" and found.kind in "US")


def _finite(array: Array) -> bool:
    flat = array.reshape(-1)
    return all(bool(np.isfinite(flat[k : k + _CHECKED_AT_ONCE]).all()) for k in range(0, flat.size, _CHECKED_AT_ONCE))


def _fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    sizes = {spec.shape[0] for spec in specs if spec.shape}
    fixed = {size for size in sizes if size is not None}
    return min(fixed) if fixed else None
