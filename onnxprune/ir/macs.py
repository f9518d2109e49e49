"""Multiply-accumulate operations of a model, counted from the concrete shapes of its tensors.

One multiply-accumulate for each product that an operator sums: convolutions, matrix products, recurrent cells and
attention. Elementwise operators, normalisations and pools count nothing, as is usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import onnx_graphsurgeon as gs

from onnxprune.ir.attention_macs import ATTENTION_COUNTERS, Shapes
from onnxprune.ir.bodies import bodies
from onnxprune.ir.model import Body, Model
from onnxprune.ir.query import attribute, constant

_RECURRENT = ("GRU", "LSTM", "RNN")


def macs(model: Model, shapes: Shapes) -> int:
    """Multiply-accumulates with these shapes (see `shapes_for`); subgraphs count as `repeated_nodes` says."""
    return sum(times * node_macs(node, shapes) for node, times in repeated_nodes(model, shapes))


def repeated_nodes(model: Model, shapes: Shapes, times: int = 1) -> Iterator[tuple[gs.Node, int]]:
    """Every node of the model and of its opened subgraphs, and how many times it counts in one run.

    All branches of an If count once each, so the number is that of the whole network, not of one path through it.
    A body of Loop counts as often as its constant trip count says, once where that is computed; one of Scan as
    often as the scanned axis is long, once where that is not known.
    """
    bodies(model)
    for node in model.graph.nodes:
        yield node, times
        for value in node.attrs.values():
            if isinstance(value, Body):
                yield from repeated_nodes(value, shapes, times * _repeats(node, shapes))


def _repeats(node: gs.Node, shapes: Shapes) -> int:
    if node.op == "Loop":
        count = constant(node.inputs[0]) if node.inputs[0].name else None
        return 1 if count is None or count.size != 1 else max(int(count.reshape(-1)[0]), 0)
    if node.op == "Scan":
        scanned = int(attribute(node, "num_scan_inputs", 1))
        axes = attribute(node, "scan_input_axes", [0])
        shape = shapes.get(node.inputs[-scanned].name, ())
        axis = int(axes[0]) if isinstance(axes, list) else 0
        return int(shape[axis]) if -len(shape) <= axis < len(shape) else 1
    return 1


def node_macs(node: gs.Node, shapes: Shapes) -> int:
    """Multiply-accumulates of one node; 0 for operators that sum no products, and where a shape is not known."""
    count = _COUNTERS.get(node.op)
    if count is None:
        return 0
    try:
        return count(node, shapes)
    except (KeyError, IndexError):
        return 0


def macs_by_weight(node: gs.Node, shapes: Shapes) -> list[tuple[int, gs.Constant | None]]:
    """The node's multiply-accumulates, split by the constant that each multiplies with; None: two activations do.

    Recurrent operators multiply with two matrices, all others with at most one.
    """
    total = node_macs(node, shapes)
    if not total:
        return []
    if node.op in _RECURRENT:
        parts = [(tensor, math.prod(shapes[tensor.name])) for tensor in node.inputs[1:3]]
        whole = max(sum(size for _, size in parts), 1)
        return [(total * size // whole, _matrix(tensor)) for tensor, size in parts]
    found = [matrix for tensor in (*node.inputs[1:2], *node.inputs) if (matrix := _matrix(tensor)) is not None]
    return [(total, found[0] if found else None)]


def _matrix(tensor: gs.Tensor) -> gs.Constant | None:
    return tensor if isinstance(tensor, gs.Constant) and len(tensor.shape) > 1 else None


def _input(node: gs.Node, index: int, shapes: Shapes) -> Sequence[int]:
    return shapes[node.inputs[index].name]


def _output(node: gs.Node, shapes: Shapes) -> Sequence[int]:
    return shapes[node.outputs[0].name]


def _conv(weight: int) -> Callable[[gs.Node, Shapes], int]:
    return lambda node, shapes: math.prod(_output(node, shapes)) * math.prod(_input(node, weight, shapes)[1:])


def _conv_transpose(node: gs.Node, shapes: Shapes) -> int:
    return math.prod(_input(node, 0, shapes)) * math.prod(_input(node, 1, shapes)[1:])


def _gemm(node: gs.Node, shapes: Shapes) -> int:
    contracted = _input(node, 0, shapes)[0 if attribute(node, "transA", 0) else 1]
    return math.prod(_output(node, shapes)) * contracted


def _matmul(node: gs.Node, shapes: Shapes) -> int:
    """FusedMatMul may transpose A's last two axes, after the first one went behind the batch axes (transBatchA)."""
    left = _input(node, 0, shapes)
    turned, batched = bool(attribute(node, "transA", 0)), bool(attribute(node, "transBatchA", 0)) and len(left) > 2
    contracted = left[(0 if batched else -2) if turned and len(left) > 1 else -1]
    return math.prod(_output(node, shapes)) * contracted


def _matmul_nbits(node: gs.Node, shapes: Shapes) -> int:
    # not the attribute K, which says the same: shapes may be those after a removal
    return math.prod(_output(node, shapes)) * _input(node, 0, shapes)[-1]


def _einsum(node: gs.Node, shapes: Shapes) -> int:
    """Product of all label sizes, once for every pair of operands; a single operand multiplies nothing."""
    terms = str(attribute(node, "equation", "")).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = list(_input(node, index, shapes))
        letters = len(term.replace("...", ""))
        spread = [f".{place}" for place in range(letters - len(shape), 0)]
        before, _, after = term.partition("...")
        for label, size in zip([*before, *spread, *after], shape, strict=False):
            sizes[label] = max(sizes.get(label, 1), size)
    return (len(terms) - 1) * math.prod(sizes.values())


def _recurrent(node: gs.Node, shapes: Shapes) -> int:
    steps_and_batch = math.prod(_input(node, 0, shapes)[:2])
    return steps_and_batch * (math.prod(_input(node, 1, shapes)) + math.prod(_input(node, 2, shapes)))


_COUNTERS: dict[str, Callable[[gs.Node, Shapes], int]] = {
    **ATTENTION_COUNTERS,
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "ConvTranspose": _conv_transpose,
    "DeformConv": _conv(1),
    "DynamicQuantizeMatMul": _matmul,
    "Einsum": _einsum,
    "FusedConv": _conv(1),
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "FusedMatMulActivation": _matmul,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "GemmFastGelu": _matmul,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "MatMulNBits": _matmul_nbits,
    "NhwcConv": _conv(1),
    "NhwcFusedConv": _conv(1),
    "QGemm": _gemm,
    "QLinearConv": _conv(3),
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
    "TransposeMatMul": _matmul,
}
