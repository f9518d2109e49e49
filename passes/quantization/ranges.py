"""Ranges of activations: extremes and samples of every tensor, reduced inside the graph so that memory stays small.

The model runs once with ReduceMin, ReduceMax and a strided Slice added to each wanted tensor; only scalars and samples
leave the session.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune import ir
from onnxprune.errors import DataError
from onnxprune.stats import Feeds, Runner
from passes.quantization.scheme import Calibration

SAMPLES = 32768
"""Values kept of each tensor, over all calls."""
_PERCENTILE = 99.99
_SHRINKS = np.linspace(1.0, 0.3, 36)


@dataclass(frozen=True)
class Observed:
    """What calibration saw of a tensor: exact extremes, and an evenly strided sample of its values (none for
    `minmax`).
    """

    low: float
    high: float
    sample: np.ndarray


def observe(
    model: ir.Model, feeds: Feeds, tensors: Sequence[str], *, sampled: bool, batch: int | None = None, threads: int = 1
) -> dict[str, Observed]:
    """Extremes (and samples) of the float32 `tensors`, which may be graph inputs, over all calls of `feeds`.

    Raises DataError when a tensor is never finite or never computed.
    """
    calls = sum(1 for _ in feeds.call_rows(batch))
    first = next(iter(feeds.calls(batch)))
    sizes = ir.shapes_for(model, {name: value.shape for name, value in first.items()}) if sampled else {}
    proto, fetched = _instrumented(
        model, tensors, {name: math.prod(shape) for name, shape in sizes.items()}, calls if sampled else 0
    )
    runner = Runner(ir.from_proto(proto), fetched, list(first), threads=threads)
    lows, highs = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    samples: list[list[np.ndarray]] = [[] for _ in tensors]
    for call in feeds.calls(batch):
        found = runner(call)
        values, count = [found[name] for name in fetched], len(tensors)
        lows = np.fmin(lows, np.asarray(values[:count], np.float64))
        highs = np.fmax(highs, np.asarray(values[count : 2 * count], np.float64))
        for kept, value in zip(samples, values[2 * count :], strict=False):
            kept.append(value)
    for name, low, high in zip(tensors, lows, highs, strict=True):
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(
                f"tensor {name!r} is not finite on the calibration data, so it cannot be quantized; check the inputs"
            )
    joined = [np.concatenate(kept) if kept else np.zeros(0, np.float32) for kept in samples]
    return {
        name: Observed(float(low), float(high), values)
        for name, low, high, values in zip(tensors, lows, highs, joined, strict=True)
    }


def _instrumented(
    model: ir.Model, tensors: Sequence[str], sizes: dict[str, int], calls: int
) -> tuple[onnx.ModelProto, list[str]]:
    proto = ir.to_proto(model)
    graph = proto.graph
    del graph.output[:]
    lows, highs, strided = [], [], []
    for k, name in enumerate(tensors):
        lows.append(f"onnxprune_low_{k}")
        highs.append(f"onnxprune_high_{k}")
        graph.node.append(helper.make_node("ReduceMin", [name], [lows[-1]], keepdims=0))
        graph.node.append(helper.make_node("ReduceMax", [name], [highs[-1]], keepdims=0))
        if calls:
            strided.append(f"onnxprune_sample_{k}")
            graph.node.extend(_strided(name, strided[-1], _stride(sizes.get(name, 0), calls)))
    if calls:
        for label, values in (("flat", [-1]), ("zero", [0]), ("end", [np.iinfo(np.int64).max])):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), f"onnxprune_{label}"))
    for name in (*lows, *highs, *strided):
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return proto, [*lows, *highs, *strided]


def _strided(source: str, target: str, stride: int) -> list[onnx.NodeProto]:
    flat = f"{target}_flat"
    step = helper.make_node("Constant", [], [f"{target}_step"], value_ints=[stride])
    shape = helper.make_node("Reshape", [source, "onnxprune_flat"], [flat])
    slices = helper.make_node(
        "Slice", [flat, "onnxprune_zero", "onnxprune_end", "onnxprune_zero", f"{target}_step"], [target]
    )
    return [step, shape, slices]


def _stride(size: int, calls: int) -> int:
    """About SAMPLES / calls values of a tensor of `size`; coprime with the size, so that it visits all channels and
    positions.
    """
    stride = max(1, size * calls // SAMPLES)
    while stride > 1 and math.gcd(stride, max(size, 1)) != 1:
        stride += 1
    return stride


def choose(observed: Observed, calibration: Calibration, symmetric: bool) -> tuple[float, float]:
    """The range (low <= 0 <= high) to quantize a tensor with."""
    low, high = min(observed.low, 0.0), max(observed.high, 0.0)
    if calibration == "minmax" or not observed.sample.size:
        return low, high
    if calibration == "percentile":
        tail = (100.0 - _PERCENTILE) / (1.0 if low == 0.0 or high == 0.0 else 2.0)
        bounds = np.percentile(observed.sample, [tail, 100.0 - tail])
        return max(low, min(float(bounds[0]), 0.0)), min(high, max(float(bounds[1]), 0.0))
    return _least_squares(observed.sample, low, high, symmetric)


def _least_squares(sample: np.ndarray, low: float, high: float, symmetric: bool) -> tuple[float, float]:
    """Shrinks both ends, then one at a time, to the range whose rounding and clipping change the sample least."""
    if symmetric:
        bound = max(-low, high)
        return min(((-bound * s, bound * s) for s in _SHRINKS), key=lambda ends: _error(sample, *ends))
    best = min(((low * s, high * s) for s in _SHRINKS), key=lambda ends: _error(sample, *ends))
    if low < 0.0 < high:
        best = min(((low * s, best[1]) for s in _SHRINKS), key=lambda ends: _error(sample, *ends))
        best = min(((best[0], high * s) for s in _SHRINKS), key=lambda ends: _error(sample, *ends))
    return best


def _error(sample: np.ndarray, low: float, high: float) -> float:
    """Squared error of the sample after rounding to 256 levels between low and high."""
    step = (high - low) / 255.0
    if step <= 0.0:
        return float(np.square(sample).sum())
    rounded = np.rint(np.clip(sample, low, high) / step) * step
    return float(np.square(rounded - sample).sum())


def noise(observed: Observed, low: float, high: float) -> float:
    """Relative error (norm over norm) that quantizing the tensor to 8 bits in [low, high] makes on its sample."""
    energy = float(np.square(observed.sample).sum())
    return math.sqrt(_error(observed.sample, low, high) / energy) if energy > 0.0 else 0.0


def float_tensors(tensors: Iterable[str], model: ir.Model) -> list[str]:
    """Those of `tensors` that hold float32 or whose type is unknown."""
    known = ir.tensors(model)
    return [name for name in tensors if known[name].dtype in (None, np.float32, np.dtype(np.float32))]
