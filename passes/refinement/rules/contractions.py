"""Conv, ConvTranspose, Gemm and MatMul: gradients of data, weights and biases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.refinement.tape import Gradients, NoRuleError, Rule, Tape

_MANY_PLACES = 32  # positions from which a product a sample outweighs what it writes


@dataclass(frozen=True)
class Window:
    """How a kernel moves: kernel, strides, dilations, and pads at the begin and end of each spatial axis; group."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    group: int = 1

    @staticmethod
    def of(node: gs.Node, kernel: Sequence[int], big: Sequence[int], small: Sequence[int]) -> Window:
        """``big`` and ``small``: the spatial shapes that the kernel slides over and that it yields."""
        rank = len(kernel)
        strides = tuple(ir.attribute(node, "strides") or [1] * rank)
        dilations = tuple(ir.attribute(node, "dilations") or [1] * rank)
        pads = tuple(ir.attribute(node, "pads") or [0] * 2 * rank)
        auto = ir.attribute(node, "auto_pad", "NOTSET")
        auto = auto.decode() if isinstance(auto, bytes) else auto
        if auto.startswith("SAME"):
            sizes = zip(small, strides, kernel, dilations, big, strict=True)
            totals = [max((count - 1) * step + (k - 1) * far + 1 - size, 0) for count, step, k, far, size in sizes]
            less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
            pads = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
        if min(pads, default=0) < 0:
            raise NoRuleError("negative pads")
        group = int(ir.attribute(node, "group", 1))
        return Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:], group)

    def attributes(self) -> dict[str, Any]:
        moved = {"strides": self.strides, "dilations": self.dilations, "pads": (*self.begin, *self.end)}
        return {"kernel_shape": list(self.kernel), "group": self.group} | {
            name: list(values) for name, values in moved.items()
        }


def convolution(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """dX is the transposed convolution of dY, dW the product of dY with the columns of X."""
    x, weight = node.inputs[:2]
    big, kernel, small = (tape.shape(tensor)[2:] for tensor in (x, weight, node.outputs[0]))
    window = Window.of(node, kernel, big, small)
    found: dict[int, str] = {}
    if tape.wants(x):
        found[0] = _spread(tape, window, dy, tape.value(weight), tape.shape(weight), big, small)
    if tape.wants(weight):
        found[1] = _weight(tape, window, tape.value(x), tape.shape(x), dy, tape.shape(node.outputs[0]))
    return found | _bias(tape, node, dy)


def transposed(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """The roles of data and output change places: dX is the convolution of dY."""
    x, weight = node.inputs[:2]
    small, kernel, big = (tape.shape(tensor)[2:] for tensor in (x, weight, node.outputs[0]))
    if ir.attribute(node, "output_shape") or ir.attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        raise NoRuleError("pads that the output's shape decides")
    window = Window.of(node, kernel, big, small)
    found: dict[int, str] = {}
    if tape.wants(x):
        gathered = tape.op("Conv", dy, tape.value(weight), **window.attributes())
        starts, ends = tape.constant([0] * len(small)), tape.constant(list(small))
        found[0] = tape.op("Slice", gathered, starts, ends, tape.constant(range(2, 2 + len(small))))
    if tape.wants(weight):
        found[1] = _weight(tape, window, dy, tape.shape(node.outputs[0]), tape.value(x), tape.shape(x))
    return found | _bias(tape, node, dy)


def _bias(tape: Tape, node: gs.Node, dy: str) -> dict[int, str]:
    if len(node.inputs) < 3 or not tape.wants(node.inputs[2]):
        return {}
    return {2: tape.sum(dy, [0, *range(2, len(tape.shape(node.outputs[0])))])}


def _spread(
    tape: Tape, window: Window, dy: str, weight: str, sizes: Sequence[int], big: Sequence[int], small: Sequence[int]
) -> str:
    """The transposed convolution, with what the strides left over at the end. Where the kernel moves by single steps it
    is a convolution with the kernel turned round, which the runtime is faster at.
    """
    reach = [(size - 1) * far for size, far in zip(window.kernel, window.dilations, strict=True)]
    first, last = ([span - pad for span, pad in zip(reach, pads, strict=True)] for pads in (window.begin, window.end))
    if set(window.strides) == {1} and min(*first, *last) >= 0:
        turned = replace(window, begin=tuple(first), end=tuple(last))
        return tape.op("Conv", dy, _turned(tape, window, weight, sizes), **turned.attributes())
    sums = zip(big, small, window.strides, reach, window.begin, window.end, strict=True)
    left = [size - ((count - 1) * step + span + 1 - low - high) for size, count, step, span, low, high in sums]
    return tape.op("ConvTranspose", dy, weight, output_padding=left, **window.attributes())


def _turned(tape: Tape, window: Window, weight: str, sizes: Sequence[int]) -> str:
    """The kernel turned round in space, with outputs and inputs of each group exchanged."""
    group, rank = window.group, len(window.kernel)
    outputs, inputs = sizes[0] // group, sizes[1]
    ends = [tape.constant([value] * rank) for value in (-1, -(1 << 31))]
    turned = tape.op("Slice", weight, *ends, tape.constant(range(2, 2 + rank)), tape.constant([-1] * rank))
    parted = tape.reshape(turned, (group, outputs, inputs, *window.kernel))
    exchanged = tape.transpose(parted, [0, 2, 1, *range(3, 3 + rank)])
    return tape.reshape(exchanged, (group * inputs, outputs, *window.kernel))


def _weight(tape: Tape, window: Window, x: str, x_shape: Sequence[int], dy: str, dy_shape: Sequence[int]) -> str:
    """(outputs, inputs / group, *kernel): the sum over positions of dY times the window of X around them."""
    pads = [0, 0, *window.begin, 0, 0, *window.end]
    padded = tape.op("Pad", x, tape.constant(pads), tape.constant(0.0)) if any(pads) else x
    if window.group == 1 and math.prod(dy_shape[2:]) >= _MANY_PLACES:
        return _weight_by_sample(tape, window, padded, x_shape, dy, dy_shape)
    group, rank = window.group, len(window.kernel)
    channels, outputs, places = x_shape[1] // group, dy_shape[1] // group, math.prod(dy_shape[2:])
    count = dy_shape[0] * places
    padded = tape.transpose(padded, [1, 0, *range(2, 2 + rank)])
    parts = [tape.reshape(part, (group, channels, count)) for part in _windows(tape, window, padded, dy_shape[2:])]
    columns = tape.op("Concat", *parts, axis=1)
    rows = tape.reshape(dy, (dy_shape[0], group, outputs, places))
    rows = tape.reshape(tape.transpose(rows, [1, 0, 3, 2]), (group, count, outputs))
    flat = tape.reshape(tape.op("MatMul", columns, rows), (group, math.prod(window.kernel), channels, outputs))
    return tape.reshape(tape.transpose(flat, [0, 3, 2, 1]), (group * outputs, channels, *window.kernel))


def _weight_by_sample(
    tape: Tape, window: Window, padded: str, x_shape: Sequence[int], dy: str, dy_shape: Sequence[int]
) -> str:
    """The same as one product a sample, which moves no data: fast where a sample has many positions."""
    samples, channels, outputs, places = dy_shape[0], x_shape[1], dy_shape[1], math.prod(dy_shape[2:])
    size = math.prod(window.kernel)
    parts = [tape.reshape(part, (samples, channels, places)) for part in _windows(tape, window, padded, dy_shape[2:])]
    columns = tape.op("Concat", *parts, axis=1) if size > 1 else parts[0]
    rows = tape.transpose(tape.reshape(dy, (samples, outputs, places)), [0, 2, 1])  # of the two the smaller
    flat = tape.reshape(tape.sum(tape.op("MatMul", columns, rows), [0]), (size, channels, outputs))
    return tape.reshape(tape.transpose(flat, [2, 1, 0]), (outputs, channels, *window.kernel))


def _windows(tape: Tape, window: Window, padded: str, places: Sequence[int]) -> Iterator[str]:
    """For every offset of the kernel the elements of ``padded`` (two axes, then space) that it meets."""
    rank = len(window.kernel)
    for offset in product(*(range(size) for size in window.kernel)):
        starts = [place * far for place, far in zip(offset, window.dilations, strict=True)]
        steps = zip(starts, places, window.strides, strict=True)
        ends = [start + (size - 1) * step + 1 for start, size, step in steps]
        corner = [tape.constant(values) for values in (starts, ends, range(2, 2 + rank), window.strides)]
        yield tape.op("Slice", padded, *corner)


def gemm(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """alpha A' B' + beta C."""
    turned_a, turned_b = (bool(ir.attribute(node, name, 0)) for name in ("transA", "transB"))
    alpha, beta = (float(ir.attribute(node, name, 1.0)) for name in ("alpha", "beta"))
    a, b, *rest = node.inputs
    found: dict[int, str] = {}
    if tape.wants(a):
        sides = (tape.value(b), dy) if turned_a else (dy, tape.value(b))
        flags = {"transA": int(turned_b), "transB": 1} if turned_a else {"transB": int(not turned_b)}
        found[0] = tape.op("Gemm", *sides, alpha=alpha, **flags)
    if tape.wants(b):
        sides = (dy, tape.value(a)) if turned_b else (tape.value(a), dy)
        flags = {"transA": 1, "transB": int(turned_a)} if turned_b else {"transA": int(not turned_a)}
        found[1] = tape.op("Gemm", *sides, alpha=alpha, **flags)
    if rest and tape.wants(rest[0]):
        scaled = dy if beta == 1 else tape.op("Mul", dy, tape.constant(beta))
        found[2] = tape.unbroadcast(scaled, tape.shape(node.outputs[0]), tape.shape(rest[0]))
    return found


def matmul(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    a, b = node.inputs
    shape_a, shape_b, shape = (tape.shape(tensor) for tensor in (a, b, node.outputs[0]))
    if min(len(shape_a), len(shape_b)) < 2:
        raise NoRuleError("a product with a vector")
    found: dict[int, str] = {}
    if tape.wants(a):
        turned = tape.transpose(tape.value(b), _last_two(len(shape_b)))
        found[0] = tape.unbroadcast(tape.op("MatMul", dy, turned), (*shape[:-1], shape_a[-1]), shape_a)
    if tape.wants(b) and len(shape_b) == 2:
        rows, grads = tape.reshape(tape.value(a), (-1, shape_a[-1])), tape.reshape(dy, (-1, shape[-1]))
        found[1] = tape.op("MatMul", tape.transpose(rows, [1, 0]), grads)
    elif tape.wants(b):
        turned = tape.transpose(tape.value(a), _last_two(len(shape_a)))
        full = (*shape[:-2], *shape_b[-2:])
        found[1] = tape.unbroadcast(tape.op("MatMul", turned, dy), full, shape_b)
    return found


def _last_two(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


RULES: dict[str, Rule] = {"Conv": convolution, "ConvTranspose": transposed, "Gemm": gemm, "MatMul": matmul}
