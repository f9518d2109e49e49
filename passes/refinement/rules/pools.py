"""Pooling: averages are spread, maxima go back to where they were."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.refinement.rules.contractions import Window
from passes.refinement.tape import Gradients, NoRuleError, Rule, Tape


def everywhere(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """GlobalAveragePool: dY over the number of positions, at each of them."""
    shape = tape.shape(node.inputs[0])
    wide = tape.op("Expand", dy, tape.constant(list(shape)))
    return {0: tape.op("Mul", wide, tape.constant(1 / math.prod(shape[2:])))}


def average(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Each channel is a convolution with a constant kernel; windows that padding makes smaller are left out."""
    big, small = tape.shape(node.inputs[0]), tape.shape(node.outputs[0])
    window = Window.of(node, node.attrs["kernel_shape"], big[2:], small[2:])
    partly = any(window.begin + window.end) and not ir.attribute(node, "count_include_pad", 0)
    if partly or ir.attribute(node, "ceil_mode", 0):
        raise NoRuleError("windows of different sizes")
    reach = [
        (count - 1) * step + (k - 1) * far + 1 - first - last
        for count, step, k, far, first, last in zip(
            small[2:], window.strides, window.kernel, window.dilations, window.begin, window.end, strict=True
        )
    ]
    kernel = np.full((1, 1, *window.kernel), 1 / math.prod(window.kernel), np.float32)
    rows = tape.reshape(dy, (small[0] * small[1], 1, *small[2:]))
    left = [size - found for size, found in zip(big[2:], reach, strict=True)]
    spread = tape.op("ConvTranspose", rows, tape.constant(kernel), output_padding=left, **window.attributes())
    return {0: tape.reshape(spread, big)}


def maximum(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """The pool runs again for the places of its maxima; where windows overlap, gradients add up."""
    if ir.attribute(node, "storage_order", 0):
        raise NoRuleError("column-major places")
    shape = tape.shape(node.inputs[0])
    places = tape.op("MaxPool", tape.value(node.inputs[0]), outputs=2, **node.attrs)
    zeros = tape.op("ConstantOfShape", tape.constant([math.prod(shape)]))
    flat = [tape.reshape(name, [-1]) for name in (places, dy)]
    return {0: tape.reshape(tape.op("ScatterElements", zeros, *flat, axis=0, reduction="add"), shape)}


RULES: dict[str, Rule] = {"AveragePool": average, "GlobalAveragePool": everywhere, "MaxPool": maximum}
