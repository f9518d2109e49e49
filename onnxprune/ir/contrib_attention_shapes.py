"""Shape functions of the attention operators of com.microsoft. Source: onnxruntime/docs/ContribOperators.md."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxprune.ir.query import attribute
from onnxprune.ir.types import Dim, ShapeFunction, TensorType

_Types = Sequence[TensorType | None]


def _at(inputs: _Types, slot: int) -> TensorType | None:
    return inputs[slot] if slot < len(inputs) else None


def _share(dim: Dim, parts: int) -> Dim:
    return dim // parts if isinstance(dim, int) and parts > 0 else None


def _after(node: gs.Node, past: Dim, new: Dim) -> Dim:
    """Past and new tokens; a buffer that the caller shares is as long as it was."""
    shared = attribute(node, "past_present_share_buffer", 0)
    if shared or (node.op == "MultiHeadAttention" and len(node.inputs) > 8 and node.inputs[8].name):
        return past
    return past + new if isinstance(past, int) and isinstance(new, int) else None


def _attention(node: gs.Node, inputs: _Types) -> _Types:
    """(batch, length, values), and keys and values in one: (2, batch, heads, length, size)."""
    x, w, past = inputs[0], inputs[1], _at(inputs, 4)
    if x is None or w is None:
        return [None, None]
    sizes, heads = attribute(node, "qkv_hidden_sizes"), int(attribute(node, "num_heads", 0))
    values: Dim = int(sizes[2]) if sizes else _share(w.shape[1], 3)
    total = x.shape[1] if past is None else _after(node, past.shape[3], x.shape[1])
    present = [2, x.shape[0], heads, total, _share(values, heads)]
    return [TensorType(x.dtype, [*x.shape[:2], values]), TensorType(x.dtype, present)]


def _multi_head(node: gs.Node, inputs: _Types) -> _Types:
    """(batch, length, values), keys and values (batch, heads, length, size), and scores."""
    q, k, v = inputs[0], _at(inputs, 1), _at(inputs, 2)
    if q is None or (k is None and len(node.inputs) > 1 and node.inputs[1].name):
        return [None] * 4
    heads, past = int(attribute(node, "num_heads", 0)), _at(inputs, 5 if node.op.startswith("Decoder") else 6)
    batch, length = q.shape[:2]
    packed = len(q.shape) == 5
    size = q.shape[4] if packed else _share(q.shape[2], heads * (3 if k is None else 1))
    values, keys = size, length
    if v is not None:
        values = v.shape[3] if len(v.shape) == 4 else _share(v.shape[2], heads)
    if k is not None:
        keys = k.shape[2] if len(k.shape) == 4 else k.shape[1]
    total = keys if past is None else _after(node, past.shape[2], keys)
    hidden = values * heads if isinstance(values, int) else None
    shapes: list[list[Dim]] = [
        [batch, length, hidden],
        [batch, heads, total, size],
        [batch, heads, total, values],
        [batch, heads, length, total],
    ]
    return [TensorType(q.dtype, shape) for shape in shapes]


def _grouped(node: gs.Node, inputs: _Types) -> _Types:
    """(batch, length, queries), keys and values (batch, key heads, length, size), and scores."""
    q = inputs[0]
    if q is None:
        return [None] * 4
    heads, kv_heads = int(attribute(node, "num_heads", 0)), int(attribute(node, "kv_num_heads", 0))
    packed = len(node.inputs) < 2 or not node.inputs[1].name
    size = _share(q.shape[2], heads + 2 * kv_heads if packed else heads)
    hidden = size * heads if isinstance(size, int) else None
    state: list[Dim] = [q.shape[0], kv_heads, None, size]  # a cache of any length, or past and new tokens
    scores: list[Dim] = [q.shape[0], heads, q.shape[1], None]
    return [TensorType(q.dtype, shape) for shape in ([*q.shape[:2], hidden], state, state, scores)]


ATTENTION_SHAPES: dict[str, ShapeFunction] = {
    "Attention": _attention,
    "DecoderMaskedMultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
    "MultiHeadAttention": _multi_head,
}
