"""Folds per-channel scales and shifts into the convolution or matrix product before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise, Skip
from passes.edits import Editor, is_standard
from passes.symbolic import Facts, analyze

Array = np.ndarray[Any, Any]
_CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class FuseBatchnorm:
    """Multiply the weights of ``Conv``, ``ConvTranspose``, ``Gemm`` and ``MatMul`` by what follows them.

    After a contraction ``y = W x + b``, every following step of the form ``y -> s y + t`` with one constant ``s`` and
    ``t`` a channel is absorbed: ``W' = s W``, ``b' = s b + t``.

    Rewrites:
      1. ``BatchNormalization`` in inference form: ``s = gamma / sqrt(var + epsilon)``, ``t = beta - s mean``.
      2. ``Mul`` and ``Div`` by a constant of one value or of one value a channel.
      3. ``Add`` and ``Sub`` of such a constant. After ``MatMul``, which has no bias, the shifts that a chain leaves
         become one ``Add``; an ``Add`` alone stays as it is.
    Requires: constant weights.
    Guarantees: outputs within the tolerance (weights are computed in float64 and rounded once). A weight or bias that
    other nodes use keeps its value: they read the original, this node a copy.
    Leaves alone: steps whose input is read twice, is a graph output or is captured by a subgraph; constants that vary
    along other axes or that would broadcast the result to another shape; training-mode normalisation; overridable
    initializers; other types than float16, float32 and float64; variances that are not finite or not positive.
    Options: none.
    References: arXiv:1502.03167, equation in Algorithm 2; ONNX operator specification, BatchNormalization.
    """

    name: ClassVar[str] = "fuse-batchnorm"
    promise: ClassVar[Promise] = "tolerance"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Visit every contraction and absorb the chain behind it."""
        editor = Editor(model)
        counts: Counter[str] = Counter()
        skips: list[Skip] = []
        contractions = [node for node in model.graph.nodes if is_standard(node, *_CONTRACTIONS)]
        facts = analyze(model, ctx) if any(node.op == "MatMul" for node in contractions) else None
        for node in contractions:
            if node.outputs:
                contraction = _contraction(editor, node, facts)
                if contraction is not None:
                    counts.update(_absorb(editor, contraction, model.opset(), skips))
        editor.finish()
        return PassResult.of(counts, skips)


@dataclass
class _Contraction:
    """A node ``y = W x + b``, how to scale the outputs of its weight, and the axis on which ``y`` has its channels."""

    node: ir.Node
    weight: gs.Constant
    channels: int
    scaled: Callable[[Array, Array], Array]
    rank: int | None
    channel_axis: int
    bias: Array | None
    takes_bias: bool


def _contraction(editor: Editor, node: ir.Node, facts: Facts | None) -> _Contraction | None:
    if len(node.inputs) < 2 or not editor.is_constant(node.inputs[1]):
        return None
    weight = node.inputs[1]
    shape = weight.shape
    bias: Array | None = None
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = editor.constant(node.inputs[2])
        if bias is None:
            return None
    if weight.dtype not in _FLOATS or len(shape) < 2:
        return None
    if node.op == "Conv":
        return _Contraction(node, weight, shape[0], _on_first, len(shape), 1, bias, True)
    if node.op == "ConvTranspose":
        groups = int(ir.attribute(node, "group", 1))
        return _Contraction(node, weight, shape[1] * groups, _grouped(groups), len(shape), 1, bias, True)
    if node.op == "Gemm":
        return _gemm(node, weight, bias)
    result = None if facts is None else facts.shape(node.outputs[0])
    width = None if result is None else len(result)
    return _Contraction(node, weight, shape[1], _on_last, width, -1, None, False) if len(shape) == 2 else None


def _gemm(node: ir.Node, weight: gs.Constant, bias: Array | None) -> _Contraction | None:
    """Gemm with alpha and beta, whose bias may be a scalar or one value a channel."""
    transposed = bool(ir.attribute(node, "transB", 0))
    channels = weight.shape[0 if transposed else 1]
    if bias is not None:
        if bias.size not in (1, channels) or (bias.ndim == 2 and bias.shape[0] != 1):
            return None
        bias = np.broadcast_to(bias.reshape(-1), (channels,)) * float(ir.attribute(node, "beta", 1.0))
    return _Contraction(node, weight, channels, _on_first if transposed else _on_last, 2, 1, bias, True)


def _on_first(weight: Array, scale: Array) -> Array:
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))


def _on_last(weight: Array, scale: Array) -> Array:
    return weight * scale


def _grouped(groups: int) -> Callable[[Array, Array], Array]:
    def scaled(weight: Array, scale: Array) -> Array:
        """Scale (inputs, outputs of a group, kernel): the inputs of group g feed the outputs of group g."""
        split = weight.reshape(groups, -1, *weight.shape[1:])
        factors = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (split * factors).reshape(weight.shape)

    return scaled


@dataclass
class _Step:
    kind: str
    scale: Array
    shift: Array


def _absorb(editor: Editor, contraction: _Contraction, opset: int, skips: list[Skip]) -> Counter[str]:
    """Collect the steps behind the contraction, then rewrite once."""
    scale = np.ones(contraction.channels)
    shift = np.zeros(contraction.channels)
    steps: list[tuple[ir.Node, _Step]] = []
    last = contraction.node.outputs[0]
    while (user := editor.only_use(last)) is not None:
        step = _step(editor, user, last, contraction, opset)
        if isinstance(step, str):
            skips.extend([Skip(ir.node_key(user), step)] if step else [])
            break
        scale, shift = scale * step.scale, shift * step.scale + step.shift
        steps.append((user, step))
        last = user.outputs[0]
    kinds = Counter(step.kind for _, step in steps)
    if not steps or (not contraction.takes_bias and set(kinds) <= {"shift"} and len(steps) == 1):
        return Counter()
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return Counter()
    _rewrite(editor, contraction, scale, shift, [node for node, _ in steps])
    return kinds


def _step(editor: Editor, node: ir.Node, source: gs.Tensor, contraction: _Contraction, opset: int) -> _Step | str:
    """The affine step that ``node`` is, or why it is none (empty where there is nothing to say)."""
    if is_standard(node, "BatchNormalization"):
        return _batchnorm(editor, node, source, contraction, opset)
    if not is_standard(node, "Add", "Sub", "Mul", "Div") or len(node.inputs) != 2 or opset < 7:
        return ""
    position = 1 if node.inputs[0] is source else 0  # of the constant
    if node.op == "Div" and position == 0:
        return ""
    values = _per_channel(editor.constant(node.inputs[position]), contraction)
    if values is None:
        return ""
    ones, zeros = np.ones(contraction.channels), np.zeros(contraction.channels)
    if node.op == "Mul":
        return _Step("scale", values, zeros)
    if node.op == "Div":
        return _Step("scale", 1.0 / values, zeros) if values.all() else "it divides by zero"
    if node.op == "Add":
        return _Step("shift", ones, values)
    return _Step("shift", ones, -values) if position == 1 else _Step("scale", -ones, values)


def _batchnorm(editor: Editor, node: ir.Node, source: gs.Tensor, contraction: _Contraction, opset: int) -> _Step | str:
    """Rewrite 1."""
    if ir.attribute(node, "training_mode", 0) or (opset < 7 and not ir.attribute(node, "is_test", 0)):
        return "it normalises with the statistics of the batch"
    if contraction.channel_axis != 1 or node.inputs[0] is not source or (opset < 9 and "spatial" in node.attrs):
        return "its channels are not those of the node before it"
    if any(tensor.name for tensor in node.outputs[1:]):
        return "it puts out statistics"
    constants = [editor.constant(tensor) for tensor in node.inputs[1:5]]
    values = [array.astype(np.float64) for array in constants if array is not None]
    if len(values) != 4 or any(array.shape != (contraction.channels,) for array in values):
        return "its parameters are not constant"
    gamma, beta, mean, variance = values
    spread = variance + float(ir.attribute(node, "epsilon", 1e-5))
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        return "its variance is not positive and finite"
    scale = gamma / np.sqrt(spread)
    return _Step("batchnorm", scale, beta - scale * mean)


def _per_channel(array: Array | None, contraction: _Contraction) -> Array | None:
    """One float64 a channel when the constant varies along the channel axis only and does not widen the result."""
    if array is None or array.dtype not in _FLOATS:
        return None
    channels = contraction.channels
    axis = contraction.channel_axis
    if array.size == 1:
        # the rank of a MatMul's result is at least 1; of others it is known
        return np.full(channels, float(array.reshape(-1)[0])) if array.ndim <= (contraction.rank or 1) else None
    if contraction.rank is not None:
        if array.ndim > contraction.rank:
            return None
        shape = (1,) * (contraction.rank - array.ndim) + array.shape
    else:
        shape = array.shape
        if array.ndim != 1:
            return None
    expected = [1] * len(shape)
    expected[axis] = channels
    return array.reshape(-1).astype(np.float64) if list(shape) == expected else None


def _rewrite(editor: Editor, contraction: _Contraction, scale: Array, shift: Array, steps: list[ir.Node]) -> None:
    node, weight = contraction.node, contraction.weight
    dtype = weight.dtype
    if (scale != 1).any():
        scaled = contraction.scaled(weight.values.astype(np.float64), scale).astype(dtype)
        editor.set_input(node, 1, _replaced(editor, weight, scaled))
    bias = np.zeros(contraction.channels) if contraction.bias is None else contraction.bias.astype(np.float64)
    bias = (bias * scale + shift).astype(dtype)
    if contraction.takes_bias:
        old = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        node.attrs.pop("beta", None)
        stem = f"{weight.name}_bias"
        fresh = editor.new_constant(stem, bias) if old is None else _replaced(editor, old, bias)
        editor.set_input(node, 2, fresh)
    last = steps[-1].outputs[0]
    for step in steps[:-1]:
        editor.remove(step)
    final = steps[-1]
    final.inputs.clear()
    final.outputs.clear()
    if contraction.takes_bias or not bias.any():
        node.outputs[0] = last
        editor.remove(final)
    else:
        _turn_into_add(editor, final, node.outputs[0], bias, last, f"{weight.name}_bias")


def _turn_into_add(
    editor: Editor, final: ir.Node, source: gs.Tensor, shift: Array, output: gs.Tensor, stem: str
) -> None:
    """Make the last step of a chain behind a MatMul the one Add that the chain's shifts come to."""
    final.op = "Add"
    final.attrs.clear()
    final.inputs.extend([source, editor.new_constant(stem, shift)])
    final.outputs.append(output)


def _replaced(editor: Editor, old: gs.Constant, values: Array) -> gs.Constant:
    """The initializer to read instead of ``old``: under its own name when this was its only reader, else a copy."""
    if len(old.outputs) == 1 and old.name not in editor.fixed and values.shape == tuple(old.shape):
        old.values = values
        return old
    return editor.new_constant(f"{old.name}_fused", values)
