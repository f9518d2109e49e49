"""Which quantized contractions cost the most error, and which sets of nodes are worth leaving in float."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Feeds, model_drift, run
from onnxprune.stats.columns import Sampler, columns, spatial
from onnxprune.stats.product import products
from passes.quantization import selection, static, stay_float

PROBES = 12
"""Nodes whose effect on the outputs is measured; that of the others is inferred from their local error."""
_SAMPLES = 32
_ROWS = 512
_CUTS = (1, 2, 3, 4, 6, 8, 12, 16)


def sensitivity(model: ir.Model, quantized: ir.Model, feeds: Feeds) -> dict[str, float]:
    """Key of every quantized contraction of `model` -> the drift that its 8-bit arithmetic adds to the outputs, in
    graph order.

    Drifts add up in squares. The nodes of largest local error, the first and the last are measured, each by one run of
    `quantized` with that node in float; for the rest the ratio of local error to drift of the measured ones is
    assumed.
    """
    feeds = feeds.spread(_SAMPLES)
    prepared = static.prepare(model)
    local = local_errors(prepared, quantized, feeds)
    total = _drift(prepared, quantized, feeds)
    gains = {key: total**2 - _drift(prepared, _without(prepared, quantized, key), feeds) ** 2 for key in _probed(local)}
    measured = {key: float(np.sqrt(max(gain, 0.0))) for key, gain in gains.items()}
    energy = sum(local[key] ** 2 for key in measured)
    ratio = np.sqrt(sum(value**2 for value in measured.values()) / energy) if energy > 0.0 else 0.0
    return {key: measured.get(key, float(ratio) * error) for key, error in local.items()}


def _probed(local: Mapping[str, float]) -> list[str]:
    keys = list(local)
    ranked = sorted(keys, key=lambda key: -local[key])
    return list(dict.fromkeys([*keys[:2], *keys[-2:], *ranked]))[:PROBES]


def _drift(model: ir.Model, other: ir.Model, feeds: Feeds) -> float:
    return max(model_drift(model, other, feeds, batch=8, threads=1).values(), default=0.0)


def local_errors(prepared: ir.Model, quantized: ir.Model, feeds: Feeds) -> dict[str, float]:
    """Relative error of each quantized contraction's products on float activations: its own rounding of input and
    weight, nothing inherited.
    """
    known = products(prepared)
    weights = ir.initializers(prepared)
    twins = {node.name: node for node in quantized.graph.nodes if node.op in selection.CONTRACTIONS}
    keys = {
        ir.node_key(node): twins[node.name]
        for node in prepared.graph.nodes
        if _quantized(twins.get(node.name)) and ir.node_key(node) in known
    }
    sums = {key: np.zeros(2) for key in keys}
    samplers = {key: Sampler(_ROWS, len(feeds), 0) for key in keys}
    names = sorted({known[key].data for key in keys})
    for call, tensors in enumerate(run(prepared, feeds, names, batch=8, threads=1) if keys else ()):
        for key, node in keys.items():
            product = known[key]
            data = tensors[product.data]
            block = columns(product, data, samplers[key].rows(call, *spatial(product, data)))
            exact = product.matrix(np.asarray(weights[product.weight].values))
            found = product.matrix(_dequantized(node, 1))
            truth = np.einsum("goc,gnc->gno", exact, block)
            change = np.einsum("goc,gnc->gno", found, _as_read(node, block)) - truth
            sums[key] += np.square(change).sum(), np.square(truth - truth.mean(1, keepdims=True)).sum()
    return {key: float(np.sqrt(error / energy)) if energy > 0 else 0.0 for key, (error, energy) in sums.items()}


def _quantized(node: gs.Node | None) -> bool:
    return node is not None and all(_pair(node, slot) is not None for slot in (0, 1))


def _pair(node: gs.Node, slot: int) -> gs.Node | None:
    source = ir.producer(node.inputs[slot])
    return source if source is not None and source.op == "DequantizeLinear" else None


def _parameters(node: gs.Node, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of a DequantizeLinear, shaped to broadcast over a tensor of `rank`."""
    scale, zero = (np.asarray(ir.constant(tensor), np.float64) for tensor in node.inputs[1:3])
    if scale.ndim == 0 or scale.size == 1:
        return scale.reshape(()), zero.reshape(())
    shape = [1] * rank
    shape[int(node.attrs.get("axis", 1))] = -1
    return scale.reshape(shape), zero.reshape(shape)


def _dequantized(node: gs.Node, slot: int) -> np.ndarray:
    source = _pair(node, slot)
    values = ir.constant(source.inputs[0]) if source is not None else None
    assert source is not None and values is not None
    scale, zero = _parameters(source, values.ndim)
    return np.asarray((values - zero) * scale)


def _as_read(node: gs.Node, block: np.ndarray) -> np.ndarray:
    """Activations after the rounding that the node's input goes through."""
    source = _pair(node, 0)
    assert source is not None
    scale, zero = _parameters(source, 0)
    limits = np.iinfo(np.asarray(ir.constant(source.inputs[2])).dtype)
    return np.asarray((np.clip(np.rint(block / scale) + zero, limits.min, limits.max) - zero) * scale)


def _without(prepared: ir.Model, quantized: ir.Model, key: str) -> ir.Model:
    """A copy of `quantized` in which the contraction `key` has its float weight and bias, and a float input where no
    other node reads it.
    """
    model = quantized.copy()
    source = next(node for node in prepared.graph.nodes if ir.node_key(node) == key)
    node = next(node for node in model.graph.nodes if node.name == source.name)
    for slot in range(1, len(source.inputs)):
        values = ir.constant(source.inputs[slot])
        if values is not None and slot < len(node.inputs):
            node.inputs[slot] = ir.Constant(f"{node.name}_float_{slot}", values)
    dequantize = _pair(node, 0)
    if dequantize is not None and len(ir.consumers(dequantize.outputs[0])) == 1:
        quantize = ir.producer(dequantize.inputs[0])
        if quantize is not None and quantize.op == "QuantizeLinear" and ir.producer(quantize.inputs[0]) is None:
            node.inputs[0] = quantize.inputs[0]
    stay_float.stay_float(model)
    return model


def ranking(errors: Mapping[str, float]) -> list[str]:
    """Keys from the most harmful contraction to the least: the order in which to leave nodes in float."""
    return sorted(errors, key=lambda key: (-errors[key], key))


def float_prefixes(model: ir.Model) -> list[tuple[str, ...]]:
    """Exclusions worth measuring for speed: the first 1, 2, 3, 4, 6, 8, ... contractions.

    Convolutions of few channels on large images are faster in float (the blocked layout) than in 8 bits, they come
    first in a model, and a prefix has one border to cross. Which prefix pays depends on the model and the machine; one
    that cuts before a pool can be far slower.
    """
    model = model.copy()
    static.simplify(model)
    keys = [ir.node_key(node) for node in selection.contractions(model)]
    return [tuple(keys[:cut]) for cut in _CUTS if cut < len(keys)]
