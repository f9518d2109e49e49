"""Tensors that an operator makes by itself (constants, ranges, random numbers), and transforms of whole signals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx.numpy_helper
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import axis_of, constant_ints, from_front, present, rank, ref, size
from onnxprune.channels.links import Barrier, Link, Pin
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import on_its_own, pass_through


@op_rule("Constant")
def constant(node: gs.Node, opset: int) -> Iterator[Link]:
    """Its elements may leave like those of an initializer."""
    if ir.constant(node.outputs[0]) is None:
        raise Barrier("the value of Constant is not a tensor")
    yield from on_its_own(node.outputs[0])


@resize_hook("Constant")
def resize_constant(node: gs.Node, opset: int, cut: Cut) -> None:
    y = node.outputs[0]
    values = ir.constant(y)
    assert values is not None
    for axis in range(values.ndim):
        values = np.delete(values, cut.gone(y, axis), axis)
    node.attrs.clear()
    node.attrs["value"] = onnx.numpy_helper.from_array(np.ascontiguousarray(values))


GENERATORS = {
    "BlackmanWindow": "its size is a number that is computed",
    "HammingWindow": "its size is a number that is computed",
    "HannWindow": "its size is a number that is computed",
    "MelWeightMatrix": "its size is a number that is computed",
    "RandomNormal": "a shorter one would hold other random numbers",
    "RandomUniform": "a shorter one would hold other random numbers",
    "Range": "it counts",
}
RANDOM = ("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike")


@op_rule(*GENERATORS)
def generator(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from _fixed(node.outputs[0], f"{node.op}: {GENERATORS[node.op]}")


@op_rule(*RANDOM)
def random(node: gs.Node, opset: int) -> Iterator[Link]:
    """Which number an element gets depends on how many are drawn before it."""
    for tensor in (node.inputs[0], node.outputs[0]):
        yield from _fixed(tensor, f"{node.op}: fewer elements would draw other random numbers")


@op_rule("TfIdfVectorizer")
def tf_idf(node: gs.Node, opset: int) -> Iterator[Link]:
    """Counts of n-grams along the last axis; a batch in front of it passes."""
    x, y = node.inputs[0], node.outputs[0]
    yield from pass_through(x, y, range(rank(x) - 1))
    yield Pin(ref(x, -1), "TfIdfVectorizer reads sequences of it")


def _fixed(tensor: gs.Tensor, reason: str) -> Iterator[Link]:
    yield from (Pin(ref(tensor, axis), reason) for axis in range(rank(tensor)) if size(tensor, axis) is not None)


@op_rule("DFT", since=17)
def dft(node: gs.Node, opset: int) -> Iterator[Link]:
    """The transformed axis and the last one, real and imaginary parts, stay. Axis: attribute before 20, input since."""
    x = node.inputs[0]
    if opset < 20:
        axis = axis_of(node, x, 1)
    else:
        given = constant_ints(present(node, 2)) if present(node, 2) is not None else [-2]
        if given is None:
            raise Barrier("the axis of DFT is computed")
        axis = from_front(given[0], rank(x))
    yield from pass_through(x, node.outputs[0], (a for a in range(rank(x) - 1) if a != axis))
    if size(x, axis) is not None:
        yield Pin(ref(x, axis), "DFT transforms it")


@op_rule("STFT", since=17)
def stft(node: gs.Node, opset: int) -> Iterator[Link]:
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0], (0,))
    if size(x, 1) is not None:
        yield Pin(ref(x, 1), "STFT transforms it")
