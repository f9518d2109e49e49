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
from onnxprune.errors import DataError, UsageError
from onnxprune.pipeline import PassContext, PassRecord
from onnxprune.progress import Progress
from onnxprune.stats import Feeds

HELD_OUT = 0.125
MOST_HELD = 256
SYNTHETIC_SAMPLES = 64


@dataclass(frozen=True)
class Prepared:
    """`source` as it was given, `base` canonical, the records of the passes, and all data that was given or made up."""

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
    ir.validate(path)
    if freeze_initializers:
        ir.freeze_initializers(source)
    feeds = load_feeds(calib_data, source, seed, input_shapes)
    progress.stage("canonicalising")
    context = PassContext(feeds=feeds.take(range(min(len(feeds), 4))), seed=seed)
    base, records = canonicalize_model(source, context, keep_batchnorm=keep_batchnorm)
    ir.infer_shapes(base)
    concrete = concrete_inputs(base, feeds, batch, input_shapes)
    return Prepared(path, source, base, tuple(records), feeds, ir.shapes_for(base, concrete), concrete)


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
    unknown = next((name for name in given if name not in inputs), None)
    if unknown is not None:
        raise UsageError(f"the model has no input {unknown!r}; its inputs are {', '.join(inputs)}")
    named: dict[str, int] = {}
    for name, shape in given.items():
        named.update({dim: size for dim, size in zip(inputs[name].shape, shape, strict=True) if isinstance(dim, str)})
    found = {}
    for name, tensor in inputs.items():
        sample = next(iter(feeds.calls(1)))[name].shape
        declared = tensor.shape if tensor.shape is not None else [None] * len(sample)
        found[name] = (
            tuple(given[name])
            if name in given
            else tuple(
                dim
                if isinstance(dim, int) and dim > 0
                else named.get(dim, batch if axis == 0 and not feeds.entries else size)
                for axis, (dim, size) in enumerate(zip(declared, sample, strict=True))
            )
        )
    return found


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


def require_data(feeds: Feeds) -> None:
    """Raises DataError where a step needs real data."""
    if feeds.synthetic:
        raise DataError("this needs calibration data; give it with --calib-data")
