"""Static quantization of a whole model: select, calibrate, insert QDQ pairs, tidy, correct biases, prove that the
result runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx.checker

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir import checker
from onnxprune.stats import Feeds, Runner, model_drift
from passes.quantization import (
    activations,
    gemm,
    opset,
    qdq,
    ranges,
    reader_ranges,
    refine,
    scaling,
    selection,
    stay_float,
    tidy,
    uniform,
)
from passes.quantization.budget import affordable
from passes.quantization.scheme import Calibration, Scheme

CALIBRATION_SAMPLES = 256
LATENCY_SAMPLES = 2
_BATCH = 32
_JUDGES = 48
_RULES: tuple[Calibration, ...] = ("minmax", "mse", "readers")
"""What `auto` tries. No rule is best everywhere: least squares ruins transformers, whose outliers carry meaning."""


def quantize_static(model: ir.Model, feeds: Feeds, scheme: Scheme) -> ir.Model:
    """An 8-bit copy of `model` with ranges calibrated on at most 256 samples of `feeds`. Raises ModelError where that
    is impossible.
    """
    prepared, spans = calibrated(model, feeds, scheme)
    quantized = build(prepared, spans, scheme)
    if scheme.refine:
        refine.refine(prepared, quantized, feeds.spread(CALIBRATION_SAMPLES))
    return proven(quantized, feeds)


def quantize_static_for_latency(model: ir.Model, feeds: Feeds, scheme: Scheme) -> ir.Model:
    """The same structure with ranges from two samples and no corrections: as fast as the real one, not as accurate."""
    quick = replace(scheme, calibration="minmax", refine=False)
    prepared, spans = calibrated(model, feeds.spread(LATENCY_SAMPLES), quick)
    quantized = build(prepared, spans, replace(quick, per_channel=False))
    if scheme.per_channel:
        uniform.spell_out(quantized)
    return quantized


def calibrated(model: ir.Model, feeds: Feeds, scheme: Scheme) -> tuple[ir.Model, dict[str, qdq.Range]]:
    """The float model ready for `build` (opset raised, nodes named, shapes known) and the range of every activation
    that may be quantized.
    """
    prepared = prepare(model)
    activations.spell_out(prepared)
    chosen = selection.select(prepared)
    wanted = ranges.float_tensors(qdq.wanted_tensors(chosen), prepared)
    if not chosen:
        raise ModelError(
            "no node of the model can be quantized: it has no Conv, Gemm or MatMul with a constant float32 weight"
        )
    sampled = scheme.calibration != "minmax"
    batch = affordable(prepared, feeds, _BATCH, all_at_once=True)
    seen = ranges.observe(prepared, feeds.spread(CALIBRATION_SAMPLES), wanted, sampled=sampled, batch=batch)
    symmetric = scheme.activation == "s8"
    rules: Sequence[Calibration] = _RULES if scheme.calibration == "auto" else (scheme.calibration,)
    found = [
        reader_ranges.choose(prepared, chosen, seen, feeds, symmetric)
        if rule == "readers"
        else {name: ranges.choose(value, rule, symmetric) for name, value in seen.items()}
        for rule in rules
    ]
    return prepared, found[_least_drift(prepared, found, feeds, scheme)]


def _least_drift(prepared: ir.Model, found: Sequence[Mapping[str, qdq.Range]], feeds: Feeds, scheme: Scheme) -> int:
    """Which ranges change the outputs least on a few samples, before any refinement."""
    if len(found) == 1:
        return 0
    judges = feeds.spread(affordable(prepared, feeds, _JUDGES))
    models = [build(prepared, spans, scheme) for spans in found]
    drifts = [max(model_drift(prepared, model, judges, batch=8, threads=1).values(), default=0.0) for model in models]
    return int(np.argmin(drifts))


def prepare(model: ir.Model) -> ir.Model:
    """A copy at opset 13 or later with unique node names and inferred shapes."""
    raised = opset.raised(model)
    prepared = raised.copy() if raised is model else raised
    simplify(prepared)
    qdq.name_nodes(prepared)
    return prepared


def simplify(model: ir.Model) -> None:
    """Infers shapes and joins products and biases, in place: the form whose node keys schemes speak of."""
    ir.infer_shapes(model)
    gemm.join_biases(model)


def build(prepared: ir.Model, spans: Mapping[str, qdq.Range], scheme: Scheme) -> ir.Model:
    """The QDQ model of a prepared float model, for the nodes that `scheme.exclude` leaves. Deterministic."""
    model = prepared.copy()
    chosen = selection.select(model, frozenset(scheme.exclude))
    if not chosen:
        raise ModelError("every node that could be quantized is excluded")
    saturating = frozenset(node.name for node in chosen if node.outputs[0].name in selection.clamped(chosen))
    qdq.own_constants(model, chosen)
    refine.plain_biases(chosen)
    quantized = qdq.insert(model, chosen, qdq.shared_ranges(chosen, spans), scheme)
    scaling.rename(quantized)
    tidy.tidy(quantized, saturating)
    stay_float.stay_float(quantized)
    ir.topological_sort(quantized)
    ir.infer_shapes(quantized)
    return quantized


def proven(quantized: ir.Model, feeds: Feeds) -> ir.Model:
    """The model itself after the full checker and one run; raises ModelError where either fails."""
    proto = ir.to_proto(quantized)
    try:
        checker.check_model(proto, full=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"the quantized model is invalid: {' '.join(str(error).split())[:200]}") from None
    call = next(iter(feeds.calls(1)))
    Runner(quantized, [tensor.name for tensor in quantized.graph.outputs], list(call), threads=1)(call)
    return quantized
