"""Checks that a rewritten model is valid, has the same signature, and keeps what the rewrite promised."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxprune import ir
from onnxprune.ir import checker
from onnxprune.ir.light import typed
from onnxprune.ir.trial import runtime_errors
from onnxprune.ir.types import value_info

if TYPE_CHECKING:
    from onnxprune.pipeline import PassContext, Promise

Array = np.ndarray[Any, Any]
_IN_MEMORY_BYTES = 1 << 30
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


def problem(before: ir.Model, after: ir.Model, promise: Promise, ctx: PassContext) -> str:
    """Return why ``after`` may not replace ``before`` (one line), or an empty string.

    The structure is always checked; outputs are compared when ``ctx.feeds`` is given. ``lossy`` asks for finite outputs
    of the same types and shapes where the original's are finite; how far they moved is the pass's own statement.
    """
    found = invalid(after) or changed_signature(before, after)
    if found or ctx.feeds is None:
        return found
    return _disagreement(before, after, promise, ctx)


def invalid(model: ir.Model) -> str:
    """Return what the ONNX checker has against the model; weights are left out, so any size is fast."""
    proto = typed(model)
    del proto.graph.value_info[:], proto.graph.output[:]
    for tensor in model.graph.outputs:
        described = value_info(tensor.name, tensor.dtype, tensor.shape, getattr(tensor, "info", None))
        proto.graph.output.append(onnx.ValueInfoProto(name=tensor.name) if described is None else described)
    try:
        checker.check_model(proto)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return f"the checker refuses it: {_one_line(error)}"
    return ""


def changed_signature(before: ir.Model, after: ir.Model) -> str:
    """Return how inputs or outputs differ in name, order, element type or dims."""
    for role in ("inputs", "outputs"):
        old, new = (_signature(getattr(model.graph, role)) for model in (before, after))
        if old != new:
            return f"the {role} changed from {old} to {new}"
    return ""


def _signature(tensors: Any) -> list[tuple[str, str, tuple[Any, ...] | None]]:
    return [(t.name, str(t.dtype), None if t.shape is None else tuple(t.shape)) for t in tensors]


def _disagreement(before: ir.Model, after: ir.Model, promise: Promise, ctx: PassContext) -> str:
    assert ctx.feeds is not None
    feeds = ctx.feeds.take(np.arange(min(ctx.samples, len(ctx.feeds))))
    with tempfile.TemporaryDirectory() as folder:
        try:
            reference = _Session(before, Path(folder) / "before.onnx")
        except runtime_errors():
            return ""  # what the provider cannot load says nothing about the rewrite
        try:
            candidate = _Session(after, Path(folder) / "after.onnx")
        except runtime_errors() as error:
            return f"ONNX Runtime refuses it: {_one_line(error)}"
        for call in feeds.calls(ctx.samples):
            found = _compare_call(reference, candidate, call, promise, ctx.tolerance)
            if found:
                return found
    return ""


def _compare_call(
    reference: _Session, candidate: _Session, call: Mapping[str, Array], promise: Promise, tolerance: float
) -> str:
    try:
        expected = reference.run(call)
    except runtime_errors():
        return ""
    try:
        found = candidate.run(call)
    except runtime_errors() as error:
        return f"it does not run: {_one_line(error)}"
    for name in expected:
        for old, new in zip(_leaves(expected[name]), _leaves(found[name]), strict=True):
            reason = difference(old, new, promise, tolerance)
            if reason:
                return f"output {name!r} {reason}"
    return ""


def difference(old: Array, new: Array, promise: Promise, tolerance: float) -> str:
    """Return how two values of one output disagree under ``promise``, or an empty string.

    ``exact``: equal bits (any NaN equals any NaN). ``tolerance``: max |new - old| <= tolerance * max |old|, widened for
    coarser float types; integers may differ where a rounding tie may have moved, in one element of a thousand.
    """
    if old.dtype != new.dtype or old.shape != new.shape:
        return f"changed from {old.dtype}{list(old.shape)} to {new.dtype}{list(new.shape)}"
    floating = old.dtype.kind in "fc" or old.dtype.kind == "V"
    if promise == "lossy":
        moved = floating and bool((np.isfinite(old) & ~np.isfinite(new)).any())
        return "is no longer finite" if moved else ""
    if np.array_equal(old, new, equal_nan=old.dtype.kind in "fc"):
        return ""
    if promise == "exact":
        return "is not bit-equal"
    if not floating:
        share = float(np.count_nonzero(old != new)) / max(old.size, 1)
        return f"differs in {share:.2%} of its elements" if share > 1e-3 else ""
    return _relative(old, new, tolerance)


def _relative(old: Array, new: Array, tolerance: float) -> str:
    if not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return "has other non-finite elements"
    usable = np.isfinite(old)
    scale = max(float(np.abs(old[usable]).max(initial=0)), 1e-30)
    error = float(np.abs(new[usable].astype(np.float64) - old[usable].astype(np.float64)).max(initial=0)) / scale
    epsilon = float(np.finfo(old.dtype).eps) if old.dtype.kind == "f" else _FLOAT32_EPSILON
    limit = tolerance * max(1.0, epsilon / _FLOAT32_EPSILON)
    return f"is off by {error:.2e} of its largest value (limit {limit:.1e})" if error > limit else ""


def _leaves(value: Any) -> Iterator[Array]:
    """The arrays in an output: itself, or the elements of a sequence, map or optional."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield np.asarray(value)


class _Session:
    """A model on the CPU provider without any optimisation, so that nothing but the rewrite differs."""

    def __init__(self, model: ir.Model, scratch: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        size = sum(math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in ir.initializers(model).values())
        if size > _IN_MEMORY_BYTES:
            ir.save(model, scratch, overwrite=True)
            source: str | bytes = str(scratch)
        else:
            source = ir.to_proto(model).SerializeToString()
        self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, call: Mapping[str, Array]) -> dict[str, Any]:
        values = self._session.run(self._outputs, {name: call[name] for name in self._inputs if name in call})
        return dict(zip(self._outputs, values, strict=True))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
