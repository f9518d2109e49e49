"""Compares the outputs of two models, and finds the first tensor where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.errors import ModelError
from passes.verify_masking.execution import Call, run
from passes.verify_masking.plan import Plan

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """|a - b| <= relative * |a| + absolute * rms(a), element by element."""

    relative: float = 1e-4
    absolute: float = 1e-5


FLOAT32 = Tolerance()
FLOAT64 = Tolerance(1e-9, 1e-9)


@dataclass(frozen=True)
class Difference:
    """The worst element of a comparison: `error` in units of the tolerance (above 1 fails), `where` a tensor name."""

    error: float
    where: str


def difference(expected: Array, actual: Array, tolerance: Tolerance, scale: float = 0.0) -> float:
    """The worst error in units of the tolerance; infinite for other shapes, types, or differing NaN and Inf.

    Integer, bool and string tensors must be equal. `scale`: the least root mean square to measure errors by.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(expected, actual) else float("inf")
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
        return float("inf")
    a, b = a[finite], b[finite]
    if not a.size:
        return 0.0
    allowed = tolerance.relative * np.abs(a) + tolerance.absolute * max(_rms(a), scale)
    with np.errstate(over="ignore"):  # where zeros were expected
        error = np.max(np.abs(a - b) / np.maximum(allowed, np.finfo(np.float64).tiny))
    return float(min(error, np.finfo(np.float64).max))


def _rms(values: Array) -> float:
    """Root mean square of the finite values of a float tensor, 0 for other tensors."""
    if not np.issubdtype(values.dtype, np.floating):
        return 0.0
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.sqrt(np.mean(finite * finite))) if finite.size else 0.0


def worst(
    expected: Sequence[Mapping[str, Array]],
    actual: Sequence[Mapping[str, Array]],
    tolerance: Tolerance,
    usual: Sequence[Mapping[str, Array]] = (),
) -> Difference:
    """The worst error over all calls and tensors that both sides computed.

    `usual`: the same tensors at their usual size. What is left of a tensor may be nothing but rounding, for example
    when the mean over a single kept channel is taken from that channel; errors are then measured by the usual size.
    """
    found = Difference(0.0, "")
    for k, (one, other) in enumerate(zip(expected, actual, strict=True)):
        for name, values in one.items():
            scale = _rms(np.asarray(usual[k][name])) if usual else 0.0
            error = difference(np.asarray(values), np.asarray(other[name]), tolerance, scale)
            if error > found.error:
                found = Difference(error, name)
    return found


def first_difference(
    masked: onnx.ModelProto, compressed: onnx.ModelProto, plan: Plan, call: Call, tolerance: Tolerance
) -> str:
    """The first tensor, in the masked original's order, whose kept part differs from the compressed model's."""
    there = {name for node in compressed.graph.node for name in node.output if name}
    order: list[str] = [name for node in masked.graph.node for name in node.output if name in there]
    constant = {t.name for t in masked.graph.initializer}
    names = [name for name in dict.fromkeys(order) if name not in constant]
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        try:
            expected, actual = (run(model, [call], some)[0] for model in (masked, compressed))
        except ModelError as error:
            return f"unknown ({error})"
        for name in some:
            kept = np.asarray(expected[name])
            for axis in plan.axes(name):
                kept = np.delete(kept, plan.removed[name, axis], axis)
            if difference(kept, np.asarray(actual[name]), tolerance) > 1:
                return name
    return ""


_AT_ONCE = 32  # tensors fetched by one run, which bounds the memory
