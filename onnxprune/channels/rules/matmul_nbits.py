"""MatMulNBits of com.microsoft: a weight of 2, 4 or 8 bits, quantized in blocks along the axis that is summed away.

B is (N, blocks, bytes). Rows of B, output elements, leave one by one; input elements leave by whole blocks, since a
block shares a scale. Scales and zero points may be flat, and zero points packed below a byte, so that deleting elements
would not do: the hook writes new ones. Specification: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, present, rank, ref, size, static
from onnxprune.channels.links import Barrier, Contract, Ints, Link, Produce, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import on_its_own, pass_through

MICROSOFT = "com.microsoft"
_PARAMETERS = (2, 3)  # slots of scales and zero points


@op_rule("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: gs.Node, opset: int) -> Iterator[Link]:
    x, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    inputs, outputs, block = integer(node, "K", 0), integer(node, "N", 0), integer(node, "block_size", 0)
    if present(node, 4) is not None or integer(node, "weight_prepacked", 0):
        raise Barrier("its weight is permuted (g_idx) or packed for one machine")
    if block < 1 or static(x, rank(x) - 1) != inputs or list(b.shape[:2]) != [outputs, -(-inputs // block)]:
        raise Barrier(f"K={inputs} N={outputs} block_size={block} do not fit {list(b.shape)}")
    for parameter in (node.inputs[1], *(present(node, slot) for slot in _PARAMETERS)):
        if parameter is not None and ir.constant(parameter) is None:
            raise Barrier(f"{parameter.name} is not constant")
    yield from pass_through(x, y, range(rank(x) - 1))
    yield Tie(ref(b, 0), ref(y, -1))
    yield Produce(ref(b, 0), "neuron")
    yield Tie(ref(b, 1), ref(x, -1), np.arange(inputs) // block)
    yield Contract(ref(b, 1))
    for parameter in (present(node, slot) for slot in _PARAMETERS):
        if parameter is not None:
            yield from on_its_own(parameter)
    bias = present(node, 5)
    if bias is not None:
        yield Tie(ref(y, -1), ref(bias, 0))


@resize_hook("MatMulNBits", domain=MICROSOFT)
def resize_matmul_nbits(node: gs.Node, opset: int, cut: Cut) -> None:
    x, b = node.inputs[:2]
    rows, blocks = cut.kept(b, 0), cut.kept(b, 1)
    node.attrs["N"], node.attrs["K"] = len(rows), len(cut.kept(x, rank(x) - 1))
    for slot in _PARAMETERS:
        parameter = present(node, slot)
        values = None if parameter is None else ir.constant(parameter)
        if values is not None:
            bits = integer(node, "bits", 4) if values.dtype == np.uint8 else 8
            cut.set_input(node, slot, _picked(values, rows, blocks, (size(b, 0) or 0, size(b, 1) or 0), bits))


def _picked(values: npt.NDArray[Any], rows: Ints, blocks: Ints, shape: tuple[int, int], bits: int) -> npt.NDArray[Any]:
    """The kept entries of a parameter, in its own layout: flat or (N, blocks), packed into bytes below 8 bits."""
    if bits == 8:
        table = values.reshape(shape)[np.ix_(rows, blocks)]
    else:
        each = 8 // bits
        loose = values.reshape(shape[0], -1).repeat(each, 1) >> (np.arange(-(-shape[1] // each) * each) % each * bits)
        table = _packed((loose & (2**bits - 1))[:, : shape[1]][np.ix_(rows, blocks)].astype(np.uint8), bits)
    return np.ascontiguousarray(table if values.ndim == 2 else table.reshape(-1))


def _packed(table: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    each = 8 // bits
    padded = np.pad(table, ((0, 0), (0, -table.shape[1] % each))).reshape(len(table), -1, each)
    shifted = padded << (np.arange(each, dtype=np.uint8) * bits)
    return np.asarray(np.bitwise_or.reduce(shifted, axis=2), np.uint8)
