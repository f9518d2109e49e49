"""Where an operator sums a channel away, read from the operator specification alone.

A gate says: operand `slot` must be zero at the removed elements of `axis`. With it the operator cannot see what a
removed channel holds, so nothing needs to be known about biases, activations at zero, or batch statistics. This table
is the oracle's own: it never asks the channel rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from passes.verify_masking.editor import Editor
from passes.verify_masking.plan import Mask


@dataclass(frozen=True)
class Gate:
    """Operand `slot` of a node is zeroed where `keep` is False along `axis` (negative: from the end).

    `zero` names the tensor that holds what stands for zero: the zero point of a quantized operand; empty for 0.
    """

    slot: int
    axis: int
    keep: Mask
    zero: str = ""


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _conv(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    return convolution(node, editor, 1)


def convolution(node: onnx.NodeProto, editor: Editor, slot: int, zero: str = "") -> list[Gate]:
    """The gate of the first operand of a convolution whose weight is operand `slot`."""
    group = attribute(node, "group", 1)
    weight = node.input[slot]
    rank = editor.rank(weight)
    keep = editor.keep(weight, 1)
    if keep is not None:
        keep = np.tile(keep, group)  # the same offset leaves every group
    elif group == 1:
        keep = editor.keep(node.input[0], 1)
    return [] if keep is None else [Gate(0, 1 - rank, keep, zero)]


def _conv_transpose(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    weight = node.input[1]
    keep = editor.keep(weight, 0)
    return [] if keep is None else [Gate(0, 1 - editor.rank(weight), keep)]


def _gemm(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    return matrices(node, editor, 1)


def matrices(node: onnx.NodeProto, editor: Editor, slot: int, zeros: tuple[str, str] = ("", "")) -> list[Gate]:
    """The gates of a product of matrices, either of which may be transposed; operand `slot` is the second."""
    a_axis = -2 if attribute(node, "transA", 0) else -1
    b_axis = -1 if attribute(node, "transB", 0) else -2
    return pair(node, editor, (0, a_axis, zeros[0]), (slot, b_axis, zeros[1]))


def _matmul(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    return stacks(node, editor, 1)


def stacks(node: onnx.NodeProto, editor: Editor, slot: int, zeros: tuple[str, str] = ("", "")) -> list[Gate]:
    """The gates of a product of stacks of matrices; operand `slot` is the second."""
    b_axis = -1 if editor.rank(node.input[slot]) == 1 else -2
    return pair(node, editor, (0, -1, zeros[0]), (slot, b_axis, zeros[1]))


def pair(node: onnx.NodeProto, editor: Editor, first: tuple[int, int, str], second: tuple[int, int, str]) -> list[Gate]:
    """Both operands (slot, axis, zero) are gated unless they are weights: a weight is finite, the other factor's zero
    is enough.
    """
    keep = editor.keep(node.input[second[0]], second[1])
    if keep is None:
        keep = editor.keep(node.input[first[0]], first[1])
    if keep is None:
        return []
    gates = [Gate(slot, axis, keep, zero) for slot, axis, zero in (first, second)]
    return [gate for gate in gates if editor.value(node.input[gate.slot]) is None] or gates[:1]


def _recurrent(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """X and W contract the input size, R contracts the hidden size: W:2 and R:2 are zeroed in the weights."""
    gates = [(1, editor.keep(node.input[1], 2)), (2, editor.keep(node.input[2], 2))]
    return [Gate(slot, -1, keep) for slot, keep in gates if keep is not None]


def _einsum(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    if not arrow:  # the letters that occur once
        result = "".join(letter for letter in terms if terms.count(letter) == 1)
    gates = []
    for slot, term in enumerate(terms.split(",")):
        letters = term.replace("...", "")
        for place, letter in enumerate(letters):
            axis = place - len(letters) if "..." not in term or place >= term.index("...") else place
            keep = editor.keep(node.input[slot], axis) if letter not in result else None
            if keep is not None:
                gates.append(Gate(slot, axis, keep))
    return gates


CONTRACTING: dict[str, Callable[[onnx.NodeProto, Editor], list[Gate]]] = {
    "Conv": _conv,
    "DeformConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
}
