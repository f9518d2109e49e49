"""Normalisations and softmax."""

from __future__ import annotations

import math

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
    axes, count = list(range(first, len(shape))), math.prod(shape[first:])
    share = tape.constant(1 / count)
    middle = tape.op("Mul", tape.sum(tape.value(x), axes, keepdims=True), share)
    centred = tape.op("Sub", tape.value(x), middle)
    variance = tape.op("Mul", tape.sum(tape.op("Mul", centred, centred), axes, keepdims=True), share)
    epsilon = tape.constant(float(ir.attribute(node, "epsilon", 1e-5)))
    deviation = tape.op("Sqrt", tape.op("Add", variance, epsilon))
    normal = tape.op("Div", centred, deviation)
    found: dict[int, str] = {}
    if tape.wants(x):
        pulled = tape.op("Mul", dy, tape.value(scale))
        even = tape.op("Mul", tape.sum(pulled, axes, keepdims=True), share)
        tilt = tape.op("Mul", tape.sum(tape.op("Mul", pulled, normal), axes, keepdims=True), share)
        rest_of = tape.op("Sub", tape.op("Sub", pulled, even), tape.op("Mul", normal, tilt))
        found[0] = tape.op("Div", rest_of, deviation)
    if tape.wants(scale):
        found[1] = tape.unbroadcast(tape.op("Mul", dy, normal), shape, tape.shape(scale))
    if rest and tape.wants(rest[0]):
        found[2] = tape.unbroadcast(dy, shape, tape.shape(rest[0]))
    return found


def softmax(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """y (dY - sum(dY y)), along the one axis of opset 13 and later, or the last."""
    axis = _axis(tape, node)
    product = tape.op("Mul", dy, tape.value(node.outputs[0]))
    total = tape.sum(product, [axis], keepdims=True)
    return {0: tape.op("Sub", product, tape.op("Mul", tape.value(node.outputs[0]), total))}


def log_softmax(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """dY - exp(y) sum(dY)."""
    total = tape.sum(dy, [_axis(tape, node)], keepdims=True)
    return {0: tape.op("Sub", dy, tape.op("Mul", tape.op("Exp", tape.value(node.outputs[0])), total))}


def _axis(tape: Tape, node: gs.Node) -> int:
    """The axis where every opset agrees: before 13 all axes from the given one on were one, by default from 1 on."""
    rank = len(tape.shape(node.inputs[0]))
    given = ir.attribute(node, "axis")
    if given is None and rank != 2:
        raise NoRuleError("an axis that depends on the opset")
    axis = rank - 1 if given is None else int(given) % rank
    if axis != rank - 1:
        raise NoRuleError("a softmax over an inner axis")
    return axis


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "LogSoftmax": log_softmax,
    "Softmax": softmax,
}
