"""Normalisations and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.refinement.tape import Gradients, NoRuleError, Rule, Tape


def batch_normalization(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """scale (x - mean) / sqrt(variance + epsilon) + bias; the statistics of training stay as they are."""
    if ir.attribute(node, "training_mode", 0):
        raise NoRuleError("statistics of the batch")
    x, scale, _, mean, variance = node.inputs
    shape = tape.shape(x)
    along = (-1, *([1] * (len(shape) - 2)))
    epsilon = tape.constant(float(ir.attribute(node, "epsilon", 1e-5)))
    deviation = tape.reshape(tape.op("Sqrt", tape.op("Add", tape.value(variance), epsilon)), along)
    slope = tape.op("Div", tape.reshape(tape.value(scale), along), deviation)
    found = {0: tape.op("Mul", dy, slope)}
    others = [0, *range(2, len(shape))]
    if tape.wants(scale):
        normal = tape.op("Div", tape.op("Sub", tape.value(x), tape.reshape(tape.value(mean), along)), deviation)
        found[1] = tape.sum(tape.op("Mul", dy, normal), others)
    if tape.wants(node.inputs[2]):
        found[2] = tape.sum(dy, others)
    return found


def layer_normalization(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """With n the normalised rows and g = dY scale: dX = (g - mean(g) - n mean(g n)) / deviation."""
    x, scale, *rest = node.inputs
    shape = tape.shape(x)
    first = int(ir.attribute(node, "axis", -1)) % len(shape)
    axes = list(range(first, len(shape)))
    normal, deviation = _standardised(tape, node, axes)
    found: dict[int, str] = {}
    if tape.wants(x):
        pulled = tape.op("Mul", dy, tape.value(scale))
        found[0] = _pulled_back(tape, pulled, normal, deviation, axes, math.prod(shape[first:]))
    if tape.wants(scale):
        found[1] = tape.unbroadcast(tape.op("Mul", dy, normal), shape, tape.shape(scale))
    if rest and tape.wants(rest[0]):
        found[2] = tape.unbroadcast(dy, shape, tape.shape(rest[0]))
    return found


def instance_normalization(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """As layer_normalization, over the positions of each channel of each sample."""
    x, scale, bias = node.inputs
    shape = tape.shape(x)
    along, axes = (-1, *([1] * (len(shape) - 2))), list(range(2, len(shape)))
    normal, deviation = _standardised(tape, node, axes)
    found: dict[int, str] = {}
    if tape.wants(x):
        pulled = tape.op("Mul", dy, tape.reshape(tape.value(scale), along))
        found[0] = _pulled_back(tape, pulled, normal, deviation, axes, math.prod(shape[2:]))
    if tape.wants(scale):
        found[1] = tape.sum(tape.op("Mul", dy, normal), [0, *axes])
    if tape.wants(bias):
        found[2] = tape.sum(dy, [0, *axes])
    return found


def _standardised(tape: Tape, node: gs.Node, axes: Sequence[int]) -> tuple[str, str]:
    """The input without its mean over the axes, over its deviation; and the deviation."""
    x, shape = tape.value(node.inputs[0]), tape.shape(node.inputs[0])
    share = tape.constant(1 / math.prod(shape[axis] for axis in axes))
    centred = tape.op("Sub", x, tape.op("Mul", tape.sum(x, axes, keepdims=True), share))
    variance = tape.op("Mul", tape.sum(tape.op("Mul", centred, centred), axes, keepdims=True), share)
    epsilon = tape.constant(float(ir.attribute(node, "epsilon", 1e-5)))
    deviation = tape.op("Sqrt", tape.op("Add", variance, epsilon))
    return tape.op("Div", centred, deviation), deviation


def _pulled_back(tape: Tape, pulled: str, normal: str, deviation: str, axes: Sequence[int], count: int) -> str:
    """(g - mean(g) - n mean(g n)) / deviation."""
    share = tape.constant(1 / count)
    even = tape.op("Mul", tape.sum(pulled, axes, keepdims=True), share)
    tilt = tape.op("Mul", tape.sum(tape.op("Mul", pulled, normal), axes, keepdims=True), share)
    left = tape.op("Sub", tape.op("Sub", pulled, even), tape.op("Mul", normal, tilt))
    return tape.op("Div", left, deviation)


def softmax(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """y (dY - sum(dY y)) along the axis."""
    axis = _axis(tape, node)
    product = tape.op("Mul", dy, tape.value(node.outputs[0]))
    total = tape.sum(product, [axis], keepdims=True)
    return {0: tape.op("Sub", product, tape.op("Mul", tape.value(node.outputs[0]), total))}


def log_softmax(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """dY - exp(y) sum(dY)."""
    total = tape.sum(dy, [_axis(tape, node)], keepdims=True)
    return {0: tape.op("Sub", dy, tape.op("Mul", tape.op("Exp", tape.value(node.outputs[0])), total))}


def _axis(tape: Tape, node: gs.Node) -> int:
    """The one axis; before opset 13 all axes from the given one on were one, so it has to be the last."""
    rank, single = len(tape.shape(node.inputs[0])), tape.opset >= 13
    axis = int(ir.attribute(node, "axis", -1 if single else 1)) % rank
    if axis != rank - 1 and not single:
        raise NoRuleError("a softmax over several axes")
    return axis


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "LogSoftmax": log_softmax,
    "Softmax": softmax,
}
