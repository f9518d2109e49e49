"""Where fused operators sum channels away: attention, and the products of com.microsoft.

Attention contracts queries with keys over the head dimension, so both are gated there. Removed heads need no gate of
their own: each gives output elements that the next product sums away. Sources: Attention-23, LinearAttention-27 of the
ONNX operator specification; onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from passes.verify_masking.contractions import Gate, attribute
from passes.verify_masking.editor import Editor
from passes.verify_masking.plan import Mask

MICROSOFT = "com.microsoft"


def _operands(node: onnx.NodeProto, editor: Editor, axes: tuple[int, int], keep: Mask) -> list[Gate]:
    """Gates of the operands that are no weights: a weight is finite, the other factor's zero is enough."""
    gates = [Gate(slot, axis, keep) for slot, axis in enumerate(axes)]
    return [gate for gate in gates if editor.value(node.input[gate.slot]) is None] or gates[:1]


def _product(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """MatMul or Gemm of operands that may be transposed first: A's columns meet B's rows."""
    a_axis, b_axis = _column(node, editor, 0, "A"), _row(node, editor)
    keep = editor.keep(node.input[1], b_axis)
    if keep is None:
        keep = editor.keep(node.input[0], a_axis)
    return [] if keep is None else _operands(node, editor, (a_axis, b_axis), keep)


def _column(node: onnx.NodeProto, editor: Editor, slot: int, which: str) -> int:
    """The last axis of an operand after it was transposed, counted from the end."""
    if not attribute(node, f"trans{which}", 0):
        return -1
    return _second_last(node, editor, slot, which)


def _second_last(node: onnx.NodeProto, editor: Editor, slot: int, which: str) -> int:
    """The last axis but one before `trans`: `transBatch` puts the first axis there."""
    batched = attribute(node, f"transBatch{which}", 0) and editor.rank(node.input[slot]) > 2
    return -editor.rank(node.input[slot]) if batched else -2


def _row(node: onnx.NodeProto, editor: Editor) -> int:
    if attribute(node, "transB", 0) or editor.rank(node.input[1]) == 1:
        return -1
    return _second_last(node, editor, 1, "B")


def _conv(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """Channels first, or last (Nhwc...); the same offset leaves every group."""
    keep = editor.keep(node.input[1], 1)
    axis = -1 if node.op_type.startswith("Nhwc") else 1 - editor.rank(node.input[1])
    return [] if keep is None else [Gate(0, axis, np.tile(keep, attribute(node, "group", 1)))]


def _quantized_product(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """B is (N, blocks, bytes): a block that is gone takes its inputs along."""
    keep = editor.keep(node.input[0], -1)
    if keep is None:
        blocks = editor.keep(node.input[1], 1)
        inputs = attribute(node, "K", 0)
        keep = None if blocks is None else np.repeat(blocks, attribute(node, "block_size", 0))[:inputs]
    return [] if keep is None else [Gate(0, -1, keep)]


def _attention(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """Queries and keys, as the last axis of tensors of their own."""
    keeps = [(slot, editor.keep(node.input[slot], -1)) for slot in (0, 1)]
    return [Gate(slot, -1, keep) for slot, keep in keeps if keep is not None]


def _projected(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """Input and weight are contracted inside; queries and keys are columns of weight and bias."""
    gates = []
    rows = editor.keep(node.input[1], 0)
    if rows is not None:
        gates.append(Gate(0, -1, rows))
    shape = editor.shape(node.input[1]) or (0, 0)
    sizes = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), [shape[1] // 3] * 3)
    return gates + _scored(node, editor, ((1, 1), (2, 0)), sizes[0] + sizes[1])


def _multi_head(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """Queries and keys, apart or packed with the values, and a bias for all three."""
    bias = 10 if node.op_type.startswith("Decoder") else 3
    if len(node.input) < 2 or not node.input[1]:  # (batch, length, queries + keys + values), or with axes of their own
        width = (editor.shape(node.input[0]) or (0,))[-1]
        return _scored(node, editor, ((0, -1), (bias, 0)), 2 * (width // 3))
    gates = _attention(node, editor)
    width = (editor.shape(node.input[0]) or (0,))[-1]
    return gates + _scored(node, editor, ((bias, 0),), 2 * width)


def _grouped(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    if len(node.input) > 1 and node.input[1]:
        return _attention(node, editor)
    heads, kv_heads = attribute(node, "num_heads", 1), attribute(node, "kv_num_heads", 1)
    width = (editor.shape(node.input[0]) or (0,))[-1]
    return _scored(node, editor, ((0, -1),), width // (heads + 2 * kv_heads) * (heads + kv_heads))


def _scored(node: onnx.NodeProto, editor: Editor, slots: tuple[tuple[int, int], ...], end: int) -> list[Gate]:
    """Gates of the first `end` elements, queries and keys, of an axis that goes on with the values."""
    found = []
    for slot, axis in slots:
        keep = editor.keep(node.input[slot], axis) if slot < len(node.input) and node.input[slot] else None
        if keep is not None:
            found.append(Gate(slot, -1, keep | (np.arange(keep.size) >= end)))
    return found


CONTRACTING: dict[tuple[str, str], Callable[[onnx.NodeProto, Editor], list[Gate]]] = {
    ("", "Attention"): _attention,
    ("", "LinearAttention"): _attention,
    (MICROSOFT, "Attention"): _projected,
    (MICROSOFT, "DecoderMaskedMultiHeadAttention"): _multi_head,
    (MICROSOFT, "FusedConv"): _conv,
    (MICROSOFT, "FusedGemm"): _product,
    (MICROSOFT, "FusedMatMul"): _product,
    (MICROSOFT, "FusedMatMulActivation"): _product,
    (MICROSOFT, "GemmFastGelu"): _product,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
    (MICROSOFT, "MatMulNBits"): _quantized_product,
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "NhwcConv"): _conv,
    (MICROSOFT, "NhwcFusedConv"): _conv,
    (MICROSOFT, "TransposeMatMul"): _product,
}
