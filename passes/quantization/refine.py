"""Refines a quantized model against the float one, contraction by contraction: weights rounded for small output error,
then means restored.

The quantized model is walked once on activations that already carry every earlier refinement. Rounding: `rounding`.
Means: bias correction (Nagel et al., arXiv 1906.04721, section 4.2) with measured means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Feeds, model_drift, run
from onnxprune.stats.columns import Sampler, columns, spatial
from onnxprune.stats.moments import Moments
from onnxprune.stats.product import Product, products
from onnxprune.stats.walk import Walk
from passes.quantization.budget import affordable
from passes.quantization.rounding import rounded
from passes.quantization.selection import CONTRACTIONS

_SAMPLES = 32
_BATCH = 8
_ROWS_A_COLUMN = 8
_ROWS = 2048
_LARGEST = 2304
"""Contractions with more columns keep nearest rounding: their matrices would take seconds each."""


@dataclass(frozen=True)
class _Step:
    """A contraction of the float model and its twin in the quantized one. `weight`, `bias`: the twin's
    DequantizeLinear nodes.
    """

    product: Product
    node: gs.Node
    weight: gs.Node
    bias: gs.Node | None
    matrix: np.ndarray


def plain_biases(chosen: Sequence[gs.Node]) -> None:
    """Gives chosen Conv and Gemm nodes a bias of one axis, in place: zeros, which refinement can fill, where there is
    none, and a flat copy where it has two axes, which the quantizer cannot take.
    """
    for node in chosen:
        if node.op not in ("Conv", "Gemm"):
            continue
        bias = ir.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
        if bias is None:
            weight = np.asarray(ir.constant(node.inputs[1]))
            outputs = weight.shape[1] if node.op == "Gemm" and not node.attrs.get("transB", 0) else weight.shape[0]
            bias = np.zeros((1, outputs), np.float32)
        if bias.ndim != 1:
            node.inputs = [*node.inputs[:2], ir.Constant(f"{ir.node_key(node)}__plain_bias", bias.reshape(-1))]


def refine(prepared: ir.Model, quantized: ir.Model, feeds: Feeds) -> None:
    """Improves int8 weights and int32 biases of `quantized`, in place, toward the float model `prepared` that it was
    built from. Of no refinement, rounding alone and both, what drifts least on the samples is kept.
    """
    steps = _steps(prepared, quantized)
    if not steps:
        return
    kept = affordable(prepared, feeds, min(len(feeds), _SAMPLES))
    batch = affordable(prepared, feeds, _BATCH, all_at_once=True)
    walked = feeds.spread(kept)
    weights = [(step.weight, step.weight.inputs[0]) for step in steps]
    biases = [(step.bias, step.bias.inputs[0]) for step in steps if step.bias is not None]
    _walk(prepared, quantized, walked, steps, batch)
    both = [(node, node.inputs[0]) for node, _ in (*weights, *biases)]
    variants = [both, [*both[: len(weights)], *biases], [*weights, *biases]]
    judges = feeds.spread(2 * kept)
    drifts = []
    for variant in variants:
        _put(variant)
        drifts.append(max(model_drift(prepared, quantized, judges, batch=batch, threads=1).values(), default=0.0))
    _put(variants[int(np.argmin(drifts))])


def _put(values: Sequence[tuple[gs.Node, gs.Tensor]]) -> None:
    for node, stored in values:
        node.inputs[0] = stored


def _walk(prepared: ir.Model, quantized: ir.Model, feeds: Feeds, steps: Sequence[_Step], batch: int) -> None:
    targets = _means(prepared, feeds, [step.product for step in steps if step.bias is not None], batch)
    walk = Walk(quantized, feeds, batch=batch, threads=1)
    for step in steps:
        if step.product.size <= _LARGEST:
            _round_weights(step, walk, len(feeds))
        if step.bias is not None:
            _restore_mean(step, walk, targets[step.product.output])


def _steps(prepared: ir.Model, quantized: ir.Model) -> list[_Step]:
    known = products(prepared)
    sources = {node.name: node for node in prepared.graph.nodes if ir.node_key(node) in known}
    weights = ir.initializers(prepared)
    steps = []
    for node in quantized.graph.nodes:
        source = sources.get(node.name) if node.op in CONTRACTIONS else None
        weight = _dequantized(node, 1, np.int8)
        if source is None or weight is None or len(ir.consumers(weight.outputs[0])) != 1:
            continue
        product = known[ir.node_key(source)]
        matrix = product.matrix(np.asarray(weights[product.weight].values))
        steps.append(_Step(product, node, weight, _dequantized(node, 2, np.int32), matrix))
    return steps


def _dequantized(node: gs.Node, slot: int, dtype: type[np.integer]) -> gs.Node | None:
    """The DequantizeLinear that feeds input `slot` with a constant of `dtype`."""
    source = ir.producer(node.inputs[slot]) if len(node.inputs) > slot else None
    if source is None or source.op != "DequantizeLinear":
        return None
    values = ir.constant(source.inputs[0])
    return source if values is not None and values.dtype == dtype else None


def _round_weights(step: _Step, walk: Walk, samples: int) -> None:
    product = step.product
    stored, scale = _values(step.weight, 0), _values(step.weight, 1).astype(np.float64)
    name = step.node.inputs[0].name
    moments = Moments()
    sampler = Sampler(max(_ROWS, _ROWS_A_COLUMN * product.size), samples, 0)
    for call, tensors in enumerate(walk.advance([name])):
        data = tensors[name]
        rows = sampler.rows(call, *spatial(product, data))
        if len(rows):
            moments.add(columns(product, data, rows))
    if not moments.count:
        return
    rows_of = product.outputs // product.groups
    scales = np.broadcast_to(scale.reshape(-1), (product.outputs,)).reshape(product.groups, rows_of)
    square = moments.covariance() if step.bias is not None else moments.square / moments.count
    limit = int(np.abs(stored.astype(np.int32)).max(initial=1))
    whole = rounded(step.matrix, scales, square, (-limit, limit)) * product.factor
    values = product.values(whole, stored.shape, np.dtype(np.int8))
    step.weight.inputs[0] = ir.Constant(f"{step.weight.inputs[0].name}_rounded", values)


def _restore_mean(step: _Step, walk: Walk, target: np.ndarray) -> None:
    name = step.node.outputs[0].name
    outputs = [tensors[name] for tensors in walk.advance([name])]
    axis = step.product.channel_axis
    bias = step.bias
    assert bias is not None
    applied = _shift(bias, target - _mean(outputs, axis))
    walk.put(name, [values + _along(applied, values.ndim, axis) for values in outputs])


def _shift(bias: gs.Node, shift: np.ndarray) -> np.ndarray:
    """Adds `shift` (a value a channel) to the int32 bias that `bias` dequantizes; returns what was added after
    rounding.
    """
    stored, step = _values(bias, 0), _values(bias, 1).astype(np.float64).reshape(-1)
    limits = np.iinfo(np.int32)
    wanted = np.rint(np.where(step > 0, shift / np.where(step > 0, step, 1.0), 0.0))
    moved = np.clip(stored.reshape(-1) + wanted, limits.min, limits.max)
    values = moved.astype(np.int32).reshape(stored.shape)
    bias.inputs[0] = ir.Constant(f"{bias.inputs[0].name}_corrected", values)
    return np.asarray((moved - stored.reshape(-1)) * step, np.float32)


def _values(node: gs.Node, slot: int) -> np.ndarray:
    values = ir.constant(node.inputs[slot])
    assert values is not None
    return values


def _mean(tensors: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Mean of every channel over everything else, weighted by size."""
    total, count = np.zeros(tensors[0].shape[axis], np.float64), 0
    for values in tensors:
        total += values.sum(axis=tuple(k for k in range(values.ndim) if k != axis % values.ndim), dtype=np.float64)
        count += values.size // max(values.shape[axis], 1)
    return total / max(count, 1)


def _along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _means(model: ir.Model, feeds: Feeds, wanted: Sequence[Product], batch: int) -> Mapping[str, np.ndarray]:
    axes = {product.output: product.channel_axis for product in wanted}
    found: dict[str, list[np.ndarray]] = {name: [] for name in axes}
    sizes: list[int] = []
    for tensors in run(model, feeds, list(axes), batch=batch, threads=1) if axes else ():
        sizes.append(max(values.size for values in tensors.values()))
        for name, axis in axes.items():
            found[name].append(_mean([tensors[name]], axis))
    return {name: np.average(values, axis=0, weights=sizes) for name, values in found.items()}
