"""Inputs for runs: given arrays cropped to the target's batch and shape, or harmless made-up values.

Runs in workers too, so it imports only numpy and the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime_bench.protocol import WorkerFault

Call = dict[str, np.ndarray]
"""The inputs of one call of the model."""

MAX_CALLS = 8
"""Calls that a worker cycles through: enough to vary the data, few enough to stay in memory."""

_DTYPES = {
    "bool": "bool",
    "double": "float64",
    "float": "float32",
    "float16": "float16",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "int8": "int8",
    "string": "str",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "uint8": "uint8",
}


@dataclass(frozen=True)
class Input:
    """One input that a model asks for. An open dimension is None; `batch_axes` are those that follow the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    batch_axes: tuple[int, ...] = (0,)


def parse(described: Sequence[Mapping[str, Any]]) -> list[Input]:
    """Inputs as a worker describes them: name, `tensor(float)`, shape with numbers, names or nothing. A name that
    stands at axis 0 of any input is the batch wherever it stands (the state of a recurrent model has it at axis 1).
    """
    batch = {d["shape"][0] for d in described if d["shape"] and isinstance(d["shape"][0], str)}
    return [
        Input(
            d["name"],
            _dtype(d),
            tuple(v if isinstance(v, int) and v >= 0 else None for v in d["shape"]),
            tuple(axis for axis, v in enumerate(d["shape"]) if axis == 0 or v in batch),
        )
        for d in described
    ]


def _dtype(described: Mapping[str, Any]) -> str:
    kind = str(described["type"])
    if not kind.startswith("tensor(") or kind[7:-1] not in _DTYPES:
        raise WorkerFault("data", f"input {described['name']!r} is of type {kind}, which cannot be fed from arrays")
    return _DTYPES[kind[7:-1]]


def shape_for(wanted: Input, batch: int, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The shape of one call: the target's own shape, else the model's with open batch axes set to `batch`."""
    given = shapes.get(wanted.name)
    if given is not None:
        fits = len(given) == len(wanted.shape) and all(m in (None, d) for m, d in zip(wanted.shape, given, strict=True))
        if not fits:
            raise WorkerFault("data", f"shape {list(given)} does not fit input {wanted.name!r} {_text(wanted)}")
        return tuple(given)
    shape = tuple(batch if d is None and i in wanted.batch_axes else d for i, d in enumerate(wanted.shape))
    if None in shape:
        raise WorkerFault(
            "shape",
            f"input {wanted.name!r} {_text(wanted)} has open dimensions: give --input-shape or calibration data",
        )
    return tuple(int(d) for d in shape if d is not None)


def _text(wanted: Input) -> str:
    return "[" + ",".join("?" if d is None else str(d) for d in wanted.shape) + "]"


def calls_for(
    inputs: Sequence[Input],
    arrays: Mapping[str, np.ndarray],
    batch: int,
    shapes: Mapping[str, Sequence[int]],
    limit: int = MAX_CALLS,
) -> list[Call]:
    """Up to `limit` calls from arrays: rank of the array = rank of the input means samples along axis 0, one more
    means one entry a call. Samples are repeated to fill a batch and cropped to the target's shape.

    Raises WorkerFault of kind data for names, ranks or shapes that do not fit.
    """
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        raise WorkerFault(
            "data", f"no data for input {missing[0]!r}; the data has {', '.join(sorted(arrays)) or 'none'}"
        )
    stacks = {i.name: _stack(i, np.asarray(arrays[i.name]), batch, shapes.get(i.name), limit) for i in inputs}
    count = min((len(s) for s in stacks.values()), default=1)
    return [{name: np.asarray(stack[k], order="C") for name, stack in stacks.items()} for k in range(count)]


def _stack(wanted: Input, array: np.ndarray, batch: int, given: Sequence[int] | None, limit: int) -> list[np.ndarray]:
    rank = len(wanted.shape)
    if array.ndim not in (rank, rank + 1) or array.size == 0:
        raise WorkerFault(
            "data", f"data of shape {list(array.shape)} does not fit input {wanted.name!r} {_text(wanted)}"
        )
    if not np.can_cast(array.dtype, _numpy(wanted.dtype), "same_kind"):
        raise WorkerFault("data", f"input {wanted.name!r} takes {wanted.dtype}, the data is {array.dtype}")
    if array.ndim == rank + 1:
        entries = [array[k] for k in range(min(limit, len(array)))]
    elif rank == 0:
        entries = [array]
    else:
        size = given[0] if given else wanted.shape[0] or batch
        calls = max(1, min(limit, len(array) // size))
        entries = [array.take(range(k * size, (k + 1) * size), axis=0, mode="wrap") for k in range(calls)]
    return [_crop(wanted, entry, given).astype(_numpy(wanted.dtype), copy=False) for entry in entries]


def _crop(wanted: Input, entry: np.ndarray, given: Sequence[int] | None) -> np.ndarray:
    """Cut to the target's shape if it gives one. Where the model fixes an extent, the data must already have it."""
    goal = tuple(given) if given else entry.shape
    fits = len(goal) == entry.ndim and all(
        have >= want and model in (None, want)
        for have, want, model in zip(entry.shape, goal, wanted.shape, strict=True)
    )
    if not fits:
        text = f"data of shape {list(entry.shape)} for input {wanted.name!r} {_text(wanted)}"
        raise WorkerFault("data", f"{text} cannot give {list(goal)}")
    return entry[tuple(slice(0, d) for d in goal)]


def _numpy(dtype: str) -> np.dtype[Any]:
    return np.dtype(object) if dtype == "str" else np.dtype(dtype)


def synthetic(
    inputs: Sequence[Input], batch: int, shapes: Mapping[str, Sequence[int]], seed: int = 0, integer: int = 0
) -> Call:
    """One call without data: floats from N(0, 1), booleans true, masks one, every other integer `integer` (0 is a valid
    index into anything), text empty. Never random integers: an index out of range would be another program.
    """
    rng = np.random.default_rng(seed)
    return {i.name: _made_up(i, shape_for(i, batch, shapes), rng, integer) for i in inputs}


def _made_up(wanted: Input, shape: tuple[int, ...], rng: np.random.Generator, integer: int) -> np.ndarray:
    dtype = _numpy(wanted.dtype)
    if dtype.kind == "O":
        return np.full(shape, "", dtype=object)
    if dtype.kind == "f":
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    if dtype.kind == "b" or "mask" in wanted.name.lower():
        return np.ones(shape, dtype)
    return np.full(shape, integer, dtype)
