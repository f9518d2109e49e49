"""Weight-only quantization: MatMul and Gemm with 4-bit weights in blocks, activations in float (MatMulNBits of
com.microsoft).

It pays where reading the weights is the work: few rows and large matrices. Rounding is data-aware, as for 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx.helper
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir.objects import Constant, Node, Variable
from onnxprune.stats import Feeds, run
from onnxprune.stats.columns import Sampler, columns, spatial
from onnxprune.stats.drift import padding
from onnxprune.stats.moments import Moments
from onnxprune.stats.product import Product, products
from passes.quantization import dynamic, static
from passes.quantization.rounding import rounded
from passes.quantization.scheme import Scheme

BITS, BLOCK = 4, 32
ZERO = 1 << (BITS - 1)
_ACCURACY = 4  # products on 8-bit activations, the fast kernel
_DOMAIN = "com.microsoft"
_SAMPLES = 64
_ROWS_A_COLUMN = 2
_ROWS = 1024
_LARGEST = 2304
"""Contractions with more columns keep nearest rounding: their matrices would take seconds each."""
_BYTES = 512 << 20
"""Second moments held at once."""
_CACHE = 1 << 20
"""Bytes; smaller weights are not read from memory in every run."""
_SHRINKS = np.linspace(1.0, 0.7, 7)


def reads_weights_most(model: ir.Model) -> bool:
    """Whether products are worth trying: their weights are most of the model and do not fit a second-level cache."""
    model = model.copy()
    static.simplify(model)
    read = sum(_weight(node).size for node in dynamic.products(model))
    floats = [tensor.values for tensor in ir.initializers(model).values() if tensor.values.dtype == np.float32]
    return 2 * read >= sum(values.size for values in floats) and 4 * read >= _CACHE


def quantize_weights(model: ir.Model, feeds: Feeds | None, scheme: Scheme) -> ir.Model:
    """A copy of `model` whose constant-weight MatMul and Gemm nodes have 4-bit weights. Without `feeds`, or where
    `scheme.refine` is off, weights go to the nearest level. Raises ModelError where there is nothing to quantize.
    """
    prepared = static.prepare(model)
    chosen = [node for node in dynamic.products(prepared) if ir.node_key(node) not in scheme.exclude]
    if not chosen:
        raise ModelError("no MatMul or Gemm with a constant float32 weight is left to quantize")
    known = products(prepared)
    wanted = [known[ir.node_key(node)] for node in chosen]
    weights = {item.node: item.matrix(_weight(node))[0] for node, item in zip(chosen, wanted, strict=True)}
    levels = {key: nearest(matrix) for key, matrix in weights.items()}
    if feeds is not None and scheme.refine:
        for product, square in _squares(prepared, wanted, feeds):
            levels[product.node] = _fitted(weights[product.node], levels[product.node][1], square)
    for node in chosen:
        _replace(prepared, node, *levels[ir.node_key(node)])
    if not prepared.opset(_DOMAIN):
        prepared.header.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return prepared


def _weight(node: gs.Node) -> np.ndarray:
    return np.asarray(ir.constant(node.inputs[1]))


def nearest(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels from -8 to 7, (outputs, columns), and scales, (outputs, blocks): of a few shrunk ranges the one with the
    least squared error in each block.
    """
    blocks = _blocked(matrix)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(2)[:, :, None], 2)[:, :, 0]
    best = np.full(largest.shape, np.inf)
    scales = np.ones_like(largest)
    for shrink in _SHRINKS:
        step = np.where(largest == 0, 1.0, -largest * shrink / ZERO)[:, :, None]
        error = np.square(np.clip(np.rint(blocks / step), -ZERO, ZERO - 1) * step - blocks).sum(2)
        scales = np.where(error < best, step[:, :, 0], scales)
        best = np.minimum(error, best)
    levels = np.clip(np.rint(blocks / scales[:, :, None]), -ZERO, ZERO - 1)
    return levels.reshape(len(matrix), -1)[:, : matrix.shape[1]], scales


def _blocked(matrix: np.ndarray) -> np.ndarray:
    """(outputs, columns) as (outputs, blocks, BLOCK), zeros at the end."""
    short = -matrix.shape[1] % BLOCK
    return np.pad(matrix, ((0, 0), (0, short))).reshape(len(matrix), -1, BLOCK)


def _fitted(matrix: np.ndarray, scales: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps = np.repeat(scales, BLOCK, axis=1)[:, : matrix.shape[1]]
    return rounded(matrix[None], steps[None], square, (-ZERO, ZERO - 1))[0], scales


def _squares(model: ir.Model, wanted: Sequence[Product], feeds: Feeds) -> Iterator[tuple[Product, np.ndarray]]:
    """The second moments of what each contraction reads, in float; those that fit in memory together share a run."""
    feeds = feeds.spread(_SAMPLES)
    left = [item for item in wanted if item.size <= _LARGEST]
    while left:
        count = max(1, int((np.cumsum([16 * item.size**2 for item in left]) <= _BYTES).sum()))
        batch, left = left[:count], left[count:]
        moments = {item.node: Moments() for item in batch}
        names = sorted({item.data for item in batch})
        calls = zip(run(model, feeds, names, batch=8, threads=1), padding(model, feeds, 8), strict=True)
        for call, (tensors, mask) in enumerate(calls):
            for item in batch:
                data = tensors[item.data]
                sampler = Sampler(max(_ROWS, _ROWS_A_COLUMN * item.size), len(feeds), 0)
                rows = sampler.rows(call, *spatial(item, data), mask)
                if len(rows):
                    moments[item.node].add(columns(item, data, rows))
        for item in batch:
            if moments[item.node].count:
                yield item, moments[item.node].square / moments[item.node].count


def _replace(model: ir.Model, node: gs.Node, levels: np.ndarray, scales: np.ndarray) -> None:
    """The node as MatMulNBits, and an Add for a bias, in place."""
    key, (outputs, size) = ir.node_key(node), levels.shape
    bias = node.inputs[2] if node.op == "Gemm" and len(node.inputs) > 2 and node.inputs[2].name else None
    stored = (_blocked(levels) + ZERO).astype(np.uint8)
    packed = (stored[:, :, 0::2] | stored[:, :, 1::2] << 4).reshape(outputs, math.ceil(size / BLOCK), -1)
    inputs = [
        node.inputs[0],
        Constant(f"{key}__levels", packed),
        Constant(f"{key}__scales", scales.astype(np.float32).reshape(-1)),
    ]
    attrs = {"K": size, "N": outputs, "bits": BITS, "block_size": BLOCK, "accuracy_level": _ACCURACY}
    result = node.outputs[0]
    product = result if bias is None else Variable(f"{key}__product", result.dtype, result.shape)
    name, place = node.name, next(k for k, item in enumerate(model.graph.nodes) if item is node)
    node.inputs, node.outputs = [], []
    made = [Node("MatMulNBits", name, attrs, inputs, [product], domain=_DOMAIN)]
    if bias is not None:
        made.append(Node("Add", f"{name}__bias", {}, [product, bias], [result]))
    model.graph.nodes[place : place + 1] = made
