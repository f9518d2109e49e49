"""Matrix products: Gemm and MatMul, with a weight on either side or between two activations."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import integer, is_weight, present, rank, ref, size
from onnxprune.channels.links import Contract, Link, Produce, Role, Tie
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import broadcast, spanning


@op_rule("Gemm")
def gemm(node: gs.Node, opset: int) -> Iterator[Link]:
    """Y = alpha * A' * B' + beta * C; C broadcasts to (M, N)."""
    yield from multiply_matrices(node, node.inputs[0], node.inputs[1], present(node, 2))


def multiply_matrices(node: gs.Node, a: gs.Tensor, b: gs.Tensor, c: gs.Tensor | None) -> Iterator[Link]:
    """The links of Gemm whose operands sit in any slots of the node."""
    y = node.outputs[0]
    a_m, a_k = (1, 0) if integer(node, "transA", 0) else (0, 1)
    b_k, b_n = (1, 0) if integer(node, "transB", 0) else (0, 1)
    yield from free(a, a_m, y, 0)
    yield from free(b, b_n, y, 1)
    yield from summed(a, a_k, b, b_k)
    if c is not None:
        yield from broadcast([c], y)


@op_rule("MatMul")
def matmul(node: gs.Node, opset: int) -> Iterator[Link]:
    """Numpy matmul. Between activations the leading axes are batched over (heads) and broadcast."""
    yield from multiply(node.inputs[0], node.inputs[1], node.outputs[0])


def multiply(a: gs.Tensor, b: gs.Tensor, y: gs.Tensor) -> Iterator[Link]:
    """The links of MatMul whose operands sit in any slots of the node."""
    a_rank, b_rank, y_rank = rank(a), rank(b), rank(y)
    a_k, b_k = a_rank - 1, max(b_rank - 2, 0)
    if a_rank > 1:
        yield from free(a, a_rank - 2, y, y_rank - (2 if b_rank > 1 else 1))
    if b_rank > 1:
        yield from free(b, b_rank - 1, y, y_rank - 1)
    yield from summed(a, a_k, b, b_k)
    yield from _batch(a, b, y)
    if not is_weight(a) and not is_weight(b):
        inner = [(b, b_k), (b, b_rank - 1), (a, max(a_rank - 2, 0))]
        yield from (Role(ref(tensor, axis), "head_dim") for tensor, axis in inner if size(tensor, axis) is not None)


def free(operand: gs.Tensor, axis: int, y: gs.Tensor, out: int) -> Iterator[Link]:
    """An axis that only one operand has: kept in the output; a weight produces it."""
    if size(operand, axis) is None and size(y, out) is None:
        return
    yield Tie(ref(operand, axis), ref(y, out))
    if is_weight(operand):
        yield Produce(ref(operand, axis), "neuron")


def summed(a: gs.Tensor, a_axis: int, b: gs.Tensor, b_axis: int) -> Iterator[Link]:
    """The axis that is summed away; the contraction is named on the weight, else on the second operand."""
    if size(a, a_axis) is None and size(b, b_axis) is None:
        return
    yield Tie(ref(b, b_axis), ref(a, a_axis))
    yield Contract(ref(a, a_axis) if is_weight(a) and not is_weight(b) else ref(b, b_axis))


def _batch(a: gs.Tensor, b: gs.Tensor, y: gs.Tensor) -> Iterator[Link]:
    lead = rank(y) - max(min(rank(a), 2) + min(rank(b), 2) - 2, 0)
    between = not is_weight(a) and not is_weight(b)
    for operand in (a, b):
        own = max(rank(operand) - 2, 0)
        for axis in range(own):
            ties = list(spanning(operand, axis, y, axis + lead - own))
            yield from ties
            if ties and between and size(operand, axis) is not None:
                yield Role(ref(operand, axis), "head")
