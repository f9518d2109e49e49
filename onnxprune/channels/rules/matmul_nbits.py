"""MatMulNBits of com.microsoft: a weight of 2, 4 or 8 bits, quantized in blocks along the axis that is summed away.

B is (N, blocks, bytes). Rows of B, output elements, leave one by one; input elements leave by whole blocks, since a
block shares a scale. Zero points are packed into bytes where they are not floats, so that deleting bytes would not do
when blocks leave: the hook writes new ones. Specification: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, present, rank, ref, static
from onnxprune.channels.links import Barrier, Contract, Link, Produce, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import pass_through

MICROSOFT = "com.microsoft"


@op_rule("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: gs.Node, opset: int) -> Iterator[Link]:
    x, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    inputs, outputs, block = integer(node, "K", 0), integer(node, "N", 0), integer(node, "block_size", 0)
    if present(node, 4) is not None or integer(node, "weight_prepacked", 0):
        raise Barrier("its weight is permuted (g_idx) or packed for one machine")
    if ir.constant(b) is None:
        raise Barrier(f"its weight {b.name} is not constant")
    if block < 1 or static(x, rank(x) - 1) != inputs or list(b.shape[:2]) != [outputs, -(-inputs // block)]:
        raise Barrier(f"K={inputs} N={outputs} block_size={block} do not fit {list(b.shape)}")
    yield from pass_through(x, y, range(rank(x) - 1))
    yield Tie(ref(b, 0), ref(y, -1))
    yield Produce(ref(b, 0), "neuron")
    yield Tie(ref(b, 1), ref(x, -1), np.arange(inputs) // block)
    yield Contract(ref(b, 1))
    yield from _parameters(node)
    bias = present(node, 5)
    if bias is not None:
        yield Tie(ref(y, -1), ref(bias, 0))


def _parameters(node: gs.Node) -> Iterator[Link]:
    """Scales are (N, blocks), zero points the same or packed along the blocks."""
    b = node.inputs[1]
    for parameter in (node.inputs[2], present(node, 3)):
        if parameter is None:
            continue
        if ir.constant(parameter) is None or rank(parameter) != 2:
            raise Barrier(f"{parameter.name} is computed, or not by rows of the weight")
        yield Tie(ref(b, 0), ref(parameter, 0))
        if parameter is node.inputs[2]:
            yield Produce(ref(parameter, 0), "neuron")
        yield (
            Tie(ref(parameter, 1), ref(parameter, 1)) if _packed(node, parameter) else Tie(ref(b, 1), ref(parameter, 1))
        )


def _packed(node: gs.Node, parameter: gs.Tensor) -> bool:
    """Whether several zero points share a byte."""
    return np.dtype(parameter.dtype) == np.uint8 and integer(node, "bits", 4) < 8


@resize_hook("MatMulNBits", domain=MICROSOFT)
def resize_matmul_nbits(node: gs.Node, opset: int, cut: Cut) -> None:
    x, b, zeros = node.inputs[0], node.inputs[1], present(node, 3)
    node.attrs["N"], node.attrs["K"] = len(cut.kept(b, 0)), len(cut.kept(x, rank(x) - 1))
    if zeros is not None and _packed(node, zeros) and len(cut.gone(b, 1)):
        bits, values = integer(node, "bits", 4), np.asarray(ir.constant(zeros), np.uint8)
        points = _unpacked(values, static(b, 1), bits)[np.ix_(cut.kept(b, 0), cut.kept(b, 1))]
        cut.set_input(node, 3, _pack(points, bits))


def _unpacked(values: npt.NDArray[np.uint8], count: int, bits: int) -> npt.NDArray[np.uint8]:
    """(rows, bytes) as (rows, count): the lowest bits of a byte come first."""
    each = 8 // bits
    shifts = np.tile(np.arange(each, dtype=np.uint8) * bits, values.shape[1])
    return np.asarray((values.repeat(each, axis=1) >> shifts & (2**bits - 1))[:, :count], np.uint8)


def _pack(points: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    each = 8 // bits
    padded = np.pad(points, ((0, 0), (0, -points.shape[1] % each))).reshape(len(points), -1, each)
    shifted = padded << (np.arange(each, dtype=np.uint8) * bits)
    return np.asarray(np.bitwise_or.reduce(shifted, axis=2), np.uint8)
