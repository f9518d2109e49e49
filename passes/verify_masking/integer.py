"""Gates of products and convolutions on 8-bit integers: a removed channel holds the zero point, which stands for 0.

Source: QLinearConv-10, ConvInteger-10, QLinearMatMul-10, MatMulInteger-10, DynamicQuantizeLinear-11 of the ONNX
operator specification; QGemm, MatMulIntegerToFloat and DynamicQuantizeMatMul of com.microsoft-1.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from passes.verify_masking.contractions import Gate, convolution, matrices, stacks
from passes.verify_masking.editor import Editor

Rule = Callable[[onnx.NodeProto, Editor], list[Gate]]


def _operand(node: onnx.NodeProto, slot: int) -> str:
    """The name of an input, empty where it is left out."""
    return str(node.input[slot]) if slot < len(node.input) else ""


def _conv(weight: int, zero: int) -> Rule:
    return lambda node, editor: convolution(node, editor, weight, _operand(node, zero))


def _matmul(second: int, zeros: tuple[int, int]) -> Rule:
    return lambda node, editor: stacks(node, editor, second, (_operand(node, zeros[0]), _operand(node, zeros[1])))


def _qgemm(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    return matrices(node, editor, 3, (_operand(node, 2), _operand(node, 5)))


def _whole(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """The scale comes from the least and the greatest of all elements and 0, so zeros do not count."""
    rank = editor.rank(node.input[0])
    found = ((axis, editor.keep(node.input[0], axis)) for axis in range(rank))
    return [Gate(0, axis - rank, keep) for axis, keep in found if keep is not None]


CONTRACTING: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _conv(3, 2),
    ("", "ConvInteger"): _conv(1, 2),
    ("", "QLinearMatMul"): _matmul(3, (2, 5)),
    ("", "MatMulInteger"): _matmul(1, (2, 3)),
    ("", "DynamicQuantizeLinear"): _whole,
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul(1, (4, 5)),
    ("com.microsoft", "DynamicQuantizeMatMul"): _whole,
    ("com.microsoft", "QGemm"): _qgemm,
}
