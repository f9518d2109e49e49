"""Before anything is searched: the model read, checked and brought to canonical form, the data checked, the shapes
known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxprune import ir
from onnxprune.canonical import canonicalize_model
from onnxprune.errors import UsageError
from onnxprune.pipeline import PassContext, PassRecord
from onnxprune.progress import Progress
from onnxprune.stats import Feeds, trimmed

HELD_OUT = 0.125
MOST_HELD = 256
SYNTHETIC_SAMPLES = 64


@dataclass(frozen=True)
class Prepared:
    """`source` as it was given, `base` canonical, the records of the passes, and all data that was given or made up;
    `shapes` are those that latency is measured at.
    """

    path: Path
    source: ir.Model
    base: ir.Model
    records: tuple[PassRecord, ...]
    feeds: Feeds
    shapes: Mapping[str, tuple[int, ...]]
    input_shapes: Mapping[str, tuple[int, ...]]


def prepare(
    path: Path,
    *,
    calib_data: str | Path | Mapping[str, object] | None,
    batch: int,
    input_shapes: Mapping[str, Sequence[int]],
    freeze_initializers: bool,
    keep_batchnorm: bool,
    seed: int,
    progress: Progress,
) -> Prepared:
    """Reads and canonicalises a model. Raises ModelError, DataError or UsageError, one line each, where that is
    impossible.
    """
    progress.stage("reading", path.name)
    source = ir.load(path)
    if freeze_initializers:
        ir.freeze_initializers(source)
    open_dimensions(source, input_shapes)  # before anything runs at a shape that cannot be
    feeds = load_feeds(calib_data, source, seed, input_shapes)
    ir.validate(path, inputs=None if feeds.synthetic else next(feeds.calls(1)))
    progress.stage("canonicalising")
    context = PassContext(feeds=feeds.first(4), seed=seed)
    base, records = canonicalize_model(source, context, keep_batchnorm=keep_batchnorm)
    ir.infer_shapes(base)
    concrete = concrete_inputs(base, feeds, batch, input_shapes)
    shapes, seen = ir.shapes_for(base, concrete), trimmed(feeds, base)
    if seen.padded is not None:
        progress.decide(f"the samples are run without their padding: {seen.padded.lengths.mean():.1f} positions each")
    return Prepared(path, source, base, tuple(records), seen, shapes, concrete)


def load_feeds(
    data: str | Path | Mapping[str, object] | None, model: ir.Model, seed: int, shapes: Mapping[str, Sequence[int]]
) -> Feeds:
    """The given data, checked against the model; synthetic inputs where there is none."""
    if data is None:
        return Feeds.synthetic(model, SYNTHETIC_SAMPLES, seed, shapes)
    if isinstance(data, Mapping):
        return Feeds.from_arrays(data, model)  # type: ignore[arg-type]
    return Feeds.load(data, model)


def concrete_inputs(
    model: ir.Model, feeds: Feeds, batch: int, given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The input shapes that latency is measured at: as given; else the data's sample shape with `batch` on an open
    first axis.

    An open dimension that has a name takes one size in all inputs: giving it for one input gives it for all.
    """
    inputs = {tensor.name: tensor for tensor in ir.feed_inputs(model)}
    named = open_dimensions(model, given)
    sample = next(iter(feeds.calls(1)))
    first = None if feeds.entries else batch
    return {
        name: tuple(given[name]) if name in given else _filled(tensor, sample[name].shape, named, first)
        for name, tensor in inputs.items()
    }


def _filled(
    tensor: ir.Variable, sample: tuple[int, ...], named: Mapping[str, int], batch: int | None
) -> tuple[int, ...]:
    """The declared shape with its open dimensions by name, else `batch` on the first axis, else the sample's."""
    declared = tensor.shape if tensor.shape is not None else [None] * len(sample)
    otherwise = sample if batch is None else (batch, *sample[1:])
    return tuple(
        dim if isinstance(dim, int) and dim > 0 else named.get(dim, size)
        for dim, size in zip(declared, otherwise, strict=True)
    )


def open_dimensions(model: ir.Model, given: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The sizes that given shapes say for named dimensions; UsageError where a shape does not fit its input."""
    inputs = {tensor.name: tensor for tensor in ir.feed_inputs(model)}
    named: dict[str, int] = {}
    for name, shape in given.items():
        if name not in inputs:
            raise UsageError(f"the model has no input {name!r}; its inputs are {', '.join(inputs)}")
        declared = inputs[name].shape
        if declared is None:
            continue
        pairs = list(zip(declared, shape, strict=False))
        fits = all(size == dim if isinstance(dim, int) and dim > 0 else size > 0 for dim, size in pairs)
        if not fits or len(declared) != len(shape):
            wanted = "x".join(str(dim) if dim is not None else "?" for dim in declared)
            raise UsageError(f"input {name!r} has the shape {wanted}, not {'x'.join(map(str, shape))}")
        named.update({dim: size for dim, size in pairs if isinstance(dim, str)})
    return named


def split(feeds: Feeds, seed: int) -> tuple[Feeds, Feeds]:
    """What the search sees, and what it does not: an eighth of the samples, at most 256."""
    fraction = 1 - min(HELD_OUT, MOST_HELD / max(len(feeds), 1))
    return feeds.split(fraction, seed)


def stored(model: str | Path | onnx.ModelProto, folder: Path) -> Path:
    """The path of a model that was given as a path or as a proto."""
    if isinstance(model, onnx.ModelProto):
        path = folder / "input.onnx"
        onnx.save(model, str(path))
        return path
    path = Path(model)
    if not path.is_file():
        raise UsageError(f"no model file at {path}")
    return path
