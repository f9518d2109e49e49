"""Bias correction: each quantized contraction gets back the mean output that it has in the float model.

The quantized model is walked once, contraction by contraction, on activations that already carry all earlier corrections
(Nagel et al., arXiv 1906.04721, section 4.2, with measured means and in sequence).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Feeds, Runner
from passes.quantization.selection import CONTRACTIONS

_CELLS = 1 << 24
"""Values of live activations kept at most (64 MiB of float32), which bounds how many samples are walked."""
_SAMPLES = 64


def add_missing(chosen: Sequence[gs.Node]) -> None:
    """Gives chosen Conv and Gemm nodes without a bias one of zeros, which correction can then fill; in place."""
    for node in chosen:
        if node.op not in ("Conv", "Gemm") or (len(node.inputs) > 2 and node.inputs[2].name):
            continue
        weight = ir.constant(node.inputs[1])
        if weight is not None:
            columns = weight.shape[1] if node.op == "Gemm" and not node.attrs.get("transB", 0) else weight.shape[0]
            node.inputs = [*node.inputs[:2], ir.Constant(f"{ir.node_key(node)}_bias", np.zeros(columns, np.float32))]


def correct(prepared: ir.Model, quantized: ir.Model, feeds: Feeds) -> None:
    """Shifts the int32 biases of `quantized`, in place, so that mean outputs match those of the float model `prepared`."""
    pairs = _pairs(prepared, quantized)
    if not pairs:
        return
    feeds = feeds.take(np.linspace(0, len(feeds) - 1, min(len(feeds), _samples(prepared, feeds)), dtype=np.int64))
    targets = _means(prepared, feeds, [source for source, _ in pairs])
    walk = _Walk(quantized, feeds)
    for source, node in pairs:
        output = node.outputs[0].name
        values = walk.compute(output)
        axis = _channel_axis(node)
        shift = targets[source.outputs[0].name] - _mean(values, axis)
        applied = _shift_bias(node, shift)
        walk.replace(output, [value + _along(applied, value.ndim, axis) for value in values])


def _pairs(prepared: ir.Model, quantized: ir.Model) -> list[tuple[gs.Node, gs.Node]]:
    """Contractions of both models with a quantized bias, matched by name, in the order of the quantized graph."""
    sources = {node.name: node for node in prepared.graph.nodes if node.op in ("Conv", "Gemm")}
    return [
        (sources[node.name], node) for node in quantized.graph.nodes if node.name in sources and _bias(node) is not None
    ]


def _bias(node: gs.Node) -> gs.Node | None:
    """The DequantizeLinear of the node's int32 bias."""
    if node.op not in CONTRACTIONS or len(node.inputs) < 3:
        return None
    source = ir.producer(node.inputs[2])
    if source is None or source.op != "DequantizeLinear":
        return None
    values = ir.constant(source.inputs[0])
    return source if values is not None and values.dtype == np.int32 else None


def _shift_bias(node: gs.Node, shift: np.ndarray) -> np.ndarray:
    """Adds `shift` (a value a channel) to the node's int32 bias; returns what was added after rounding."""
    source = _bias(node)
    assert source is not None
    stored, scale = ir.constant(source.inputs[0]), ir.constant(source.inputs[1])
    assert stored is not None and scale is not None
    step = np.asarray(scale, np.float64).reshape(-1)
    safe = np.where(step > 0, step, 1.0)
    limits = np.iinfo(np.int32)
    moved = np.clip(stored.reshape(-1) + np.rint(np.where(step > 0, shift / safe, 0.0)), limits.min, limits.max)
    source.inputs[0] = ir.Constant(f"{source.inputs[0].name}_corrected", moved.astype(np.int32).reshape(stored.shape))
    return np.asarray((moved - stored.reshape(-1)) * step, np.float32)


def _channel_axis(node: gs.Node) -> int:
    return 1 if node.op == "Conv" else -1


def _mean(values: Sequence[np.ndarray], axis: int) -> np.ndarray:
    total, count = np.zeros(values[0].shape[axis], np.float64), 0
    for value in values:
        total += value.sum(axis=tuple(k for k in range(value.ndim) if k != axis % value.ndim), dtype=np.float64)
        count += value.size // max(value.shape[axis], 1)
    return total / max(count, 1)


def _along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _means(model: ir.Model, feeds: Feeds, nodes: Sequence[gs.Node]) -> dict[str, np.ndarray]:
    names = [node.outputs[0].name for node in nodes]
    totals: dict[str, list[np.ndarray]] = {name: [] for name in names}
    weights: list[int] = []
    axes = {node.outputs[0].name: _channel_axis(node) for node in nodes}
    runner: Runner | None = None
    for call in feeds.calls(8):
        runner = runner or Runner(model, names, list(call), threads=1)
        found = runner(call)
        weights.append(max(len(np.atleast_1d(value)) for value in call.values()))
        for name in names:
            totals[name].append(_mean([found[name]], axes[name]))
    return {name: np.average(values, axis=0, weights=weights) for name, values in totals.items()}


def _samples(model: ir.Model, feeds: Feeds) -> int:
    """How many samples keep the largest few activations within the budget."""
    call = next(iter(feeds.calls(1)))
    shapes = ir.shapes_for(model, {name: value.shape for name, value in call.items()})
    sizes = sorted(
        (int(np.prod(shapes[t.name])) for node in model.graph.nodes for t in node.outputs if t.name in shapes),
        reverse=True,
    )
    return max(1, min(_SAMPLES, _CELLS // max(1, sum(sizes[:4]))))


class _Walk:
    """Computes tensors of a model one after another, keeping only those that later nodes still read."""

    def __init__(self, model: ir.Model, feeds: Feeds) -> None:
        self._model = model
        self._live: list[dict[str, np.ndarray]] = [dict(call) for call in feeds.calls(8)]
        self._last = {
            t.name: k for k, node in enumerate(model.graph.nodes) for t in node.inputs if isinstance(t, gs.Variable)
        }
        self._position = {t.name: k for k, node in enumerate(model.graph.nodes) for t in node.outputs}

    def compute(self, name: str) -> list[np.ndarray]:
        """Values of the tensor `name`, one a call, and of everything before it that later nodes need."""
        known = list(self._live[0])
        end = self._position[name]
        outputs = [name] + [t for t in self._crossing(end) if t not in self._live[0] and t != name]
        runner = Runner(self._model, outputs, known, threads=1)
        for call in self._live:
            call.update(runner(call))
            for gone in [t for t in call if self._last.get(t, -1) <= end and t != name]:
                del call[gone]
        return [call[name] for call in self._live]

    def _crossing(self, end: int) -> list[str]:
        """Activations written up to node `end` and read after it."""
        nodes = self._model.graph.nodes
        written = [t.name for node in nodes[: end + 1] if not _weight(node) for t in node.outputs if t.name]
        return [t for t in written if self._last.get(t, -1) > end]

    def replace(self, name: str, values: Sequence[np.ndarray]) -> None:
        """Puts corrected values in place of those computed."""
        for call, value in zip(self._live, values, strict=True):
            call[name] = value


def _weight(node: gs.Node) -> bool:
    """A DequantizeLinear of a constant."""
    return node.op == "DequantizeLinear" and ir.constant(node.inputs[0]) is not None
