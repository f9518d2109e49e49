"""The oracle: is the compressed model the original with those channels removed?

Two proofs, on a code path that shares nothing with the slicing of structured_pruning:

1. *Masking.* The original, with every removed channel hidden from what sums it away, gives the outputs of the
   compressed model.
2. *Non-interference.* Random values in the removed slices of all initializers do not move the masked original's
   outputs: nothing that was removed still reaches an output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError
from passes.verify_masking.comparison import FLOAT32, FLOAT64, Tolerance
from passes.verify_masking.editor import Array, Shapes
from passes.verify_masking.execution import Call, describe, evaluable, run, run_float64
from passes.verify_masking.masked import masked_original, measured_tensors
from passes.verify_masking.plan import Plan, Removed, plan_of
from passes.verify_masking.proofs import Proof, Verdict, runs
from passes.verify_masking.relaxed import is_reduced, relaxed, widened
from passes.verify_masking.subgraphs import inner_shapes, lifted, paths

Weights = Literal["original", "final"]
_BATCH = 8  # samples a call, where the model leaves it open


@runtime_checkable
class HasCalls(Protocol):
    """Calibration inputs such as `onnxprune.stats.Feeds`."""

    def calls(self, batch: int | None = None) -> Iterable[Call]: ...


def verify(
    original: ir.Model | onnx.ModelProto,
    compressed: ir.Model | onnx.ModelProto,
    removed: Removed | Iterable[Mapping[str, Any]],
    feeds: HasCalls | Iterable[Call],
    *,
    dropped: Collection[str] = (),
    weights: Weights = "original",
    max_calls: int = 2,
    seed: int = 0,
    tolerance: Tolerance = FLOAT32,
    float64: bool = False,
) -> Verdict:
    """Proves that `compressed` computes what `original` computes without the removed slices.

    Args:
        original: the canonical model that was pruned.
        compressed: the float model after pruning, before quantization.
        removed: `ChannelGraph.removals(keep)`, or the `removed` rows of a report. Activations must be in it where they
            are contracted with each other or pass an operator whose formula holds the channel count.
        feeds: real inputs; the first `max_calls` calls are used.
        dropped: branch outputs that count as zero.
        weights: "original" proves the slicing itself; "final" takes the compensated weights from `compressed`.
        seed: of the random values of the second proof.
        tolerance: of the float32 comparison.
        float64: decide with onnx's reference evaluator in float64 (small models only, of operators that it knows).

    Raises ModelError when one of the models cannot run at all, never for a mere difference.
    """
    base, small = _proto(original), _proto(compressed)
    calls = _calls(feeds, max_calls)
    case = _Case(base, small, plan_of(removed), calls, dropped, weights, seed, tolerance, float64)
    if not is_reduced(base):
        return _judge(case)
    try:
        verdict = _judge(case)
    except ModelError:
        verdict = None  # the CPU provider has no kernels for some types
    if verdict:
        return verdict
    try:
        return _judge(_relaxed(case))
    except ModelError as error:
        if verdict is None:
            raise ModelError(f"neither the model nor its relaxed form can be run: {error}") from error
        return verdict


@dataclass(frozen=True)
class _Case:
    """The arguments of `verify`, read."""

    base: onnx.ModelProto
    small: onnx.ModelProto
    plan: Plan
    calls: Sequence[Call]
    dropped: Collection[str]
    weights: Weights
    seed: int
    tolerance: Tolerance
    float64: bool


def _relaxed(case: _Case) -> _Case:
    """The same question about the relaxed forms of both models."""
    base, small = relaxed(case.base), relaxed(case.small)
    removed = dict(case.plan.removed)
    for new, old in base.origin.items():
        removed.update({(new, axis): case.plan.removed[old, axis] for axis in case.plan.axes(old)})
    calls = [widened(call) for call in case.calls]
    return replace(case, base=base.model, small=small.model, plan=Plan(removed), calls=calls)


def _judge(case: _Case) -> Verdict:
    """Both proofs."""
    base, small, plan, calls, dropped, weights = (
        *(case.base, case.small, case.plan),
        *(case.calls, case.dropped, case.weights),
    )
    shapes = _measure(base, plan, calls, dropped)
    execute, limit = (run_float64, FLOAT64) if case.float64 and evaluable(case.base) else (run, case.tolerance)
    final = small if weights == "final" else None
    try:
        masked = masked_original(base, plan, shapes, dropped=dropped, final=final)
    except ModelError as error:
        return Verdict(False, float("inf"), reason=str(error))
    noise = _noise(base, plan, np.random.default_rng(case.seed))
    disturbed = masked_original(base, plan, shapes, dropped=dropped, final=final, initializers=noise) if noise else None
    proof = Proof(base, small, masked, disturbed, plan, calls, execute, limit, case.tolerance)
    verdict = proof.of({})
    for conditions in paths(base, plan):
        if not verdict.ok:
            return verdict
        if runs(base, conditions, calls):
            found = proof.of(conditions)
            verdict = found if not found.ok else Verdict(True, max(verdict.error, found.error))
    return verdict


def _proto(model: ir.Model | onnx.ModelProto) -> onnx.ModelProto:
    return lifted(model if isinstance(model, onnx.ModelProto) else ir.to_proto(model))


def _calls(feeds: HasCalls | Iterable[Call], limit: int) -> list[Call]:
    source = feeds.calls(_BATCH) if isinstance(feeds, HasCalls) else feeds
    calls = [call for call, _ in zip(source, range(limit), strict=False)]
    if not calls:
        raise ModelError("the oracle needs at least one input to run the models on")
    return calls


def _measure(model: onnx.ModelProto, plan: Plan, calls: Sequence[Call], dropped: Collection[str]) -> Shapes:
    """Shapes and element types of the activations that the masked original needs, from a run of the original; of those
    inside subgraphs, from onnx's shape inference.
    """
    names = measured_tensors(model, plan, dropped)
    hidden = plan.tensors() - set(names) - {tensor.name for tensor in model.graph.initializer}
    inside = inner_shapes(model, hidden) if hidden else {}
    if not names:
        return inside
    fed = {name: (array.shape, array.dtype) for name, array in calls[0].items()}
    inner = [name for name in names if name not in fed]
    return inside | fed | (describe(model, calls[0], inner) if inner else {})


def _noise(model: onnx.ModelProto, plan: Plan, rng: np.random.Generator) -> dict[str, Array]:
    """Every float initializer and 8-bit weight that loses slices, with random values there."""
    noise: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        axes = plan.axes(tensor.name)
        values = numpy_helper.to_array(tensor) if axes else np.empty(0)
        levels = values.dtype in (np.int8, np.uint8) and values.ndim > 1  # a vector of these is zero points
        if not (levels or np.issubdtype(values.dtype, np.floating)) or not values.size:
            continue
        gone = np.zeros(values.shape, bool)
        for axis in axes:
            gone[(slice(None),) * axis + (plan.removed[tensor.name, axis],)] = True
        noise[tensor.name] = np.where(gone, _drawn(values, rng), values).astype(values.dtype)
    return noise


def _drawn(values: Array, rng: np.random.Generator) -> Array:
    """Random values of the array's type and scale."""
    if not np.issubdtype(values.dtype, np.floating):
        limits = np.iinfo(values.dtype)
        return rng.integers(limits.min, limits.max + 1, values.shape)
    fresh: Array = rng.normal(0.0, float(values.std()) + 1.0, values.shape)
    return np.abs(fresh) + 0.1 if values.min() > 0 else fresh  # a variance stays a variance
