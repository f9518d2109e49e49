"""Multiply-accumulates of attention operators: queries with keys, and scores with values, over all keys that there are.

Masks and windows save nothing in this count: kernels differ in what they skip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxprune.ir.query import attribute

Shapes = Mapping[str, Sequence[int]]
_STANDARD = ("", "ai.onnx", None)


def _shape(node: gs.Node, slot: int, shapes: Shapes) -> Sequence[int]:
    """The shape of an input, empty where it is left out. KeyError where it is not known."""
    present = slot < len(node.inputs) and node.inputs[slot].name
    return shapes[node.inputs[slot].name] if present else ()


def _output(node: gs.Node, shapes: Shapes) -> Sequence[int]:
    return shapes[node.outputs[0].name]


def _attention(node: gs.Node, shapes: Shapes) -> int:
    """Attention of the standard domain on rank 4 (batch, heads, length, size) or 3 (batch, length, hidden)."""
    if node.domain not in _STANDARD:
        return _projected(node, shapes)
    query, key, past = (_shape(node, slot, shapes) for slot in (0, 1, 4))
    total = key[-2] + (past[2] if past else 0)
    if len(query) == 4:
        return query[0] * query[1] * query[2] * total * (query[3] + _output(node, shapes)[3])
    return query[0] * query[1] * total * (query[2] + _output(node, shapes)[2])


def _projected(node: gs.Node, shapes: Shapes) -> int:
    """Attention of com.microsoft: the projection of queries, keys and values by one weight, then both products."""
    batch, length = _shape(node, 0, shapes)[:2]
    weight, past, hidden = _shape(node, 1, shapes), _shape(node, 4, shapes), _output(node, shapes)[-1]
    total = length + (past[3] if past and node.op == "Attention" else 0)
    return batch * length * (math.prod(weight) + total * (weight[1] - hidden) // 2 + total * hidden)


def _multi_head(node: gs.Node, shapes: Shapes) -> int:
    """Keys of rank 3 (batch, length, hidden), 4 (batch, heads, length, size), 5 (packed), or inside the queries."""
    query, key = _shape(node, 0, shapes), _shape(node, 1, shapes)
    past = _shape(node, 5 if node.op.startswith("Decoder") else 6, shapes)
    hidden = _output(node, shapes)[-1]
    length = query[1] if not key else key[2] if len(key) == 4 else key[1]
    queries = query[2] if key else hidden
    return query[0] * query[1] * (length + (past[2] if past else 0)) * (queries + hidden)


def _grouped(node: gs.Node, shapes: Shapes) -> int:
    """The cache that comes out holds all keys; without it, past and new tokens."""
    query, past, hidden = _shape(node, 0, shapes), _shape(node, 3, shapes), _output(node, shapes)[-1]
    present = node.outputs[1].name if len(node.outputs) > 1 else ""
    total = shapes[present][2] if present in shapes else query[1] + (past[2] if past else 0)
    return query[0] * query[1] * total * 2 * hidden


def _linear(node: gs.Node, shapes: Shapes) -> int:
    """Each token updates a state (key heads, size, value size) and each query head reads it."""
    query, value = _shape(node, 0, shapes), _shape(node, 2, shapes)
    heads, kv_heads = int(attribute(node, "q_num_heads", 1)), int(attribute(node, "kv_num_heads", 1))
    return query[0] * query[1] * (heads + kv_heads) * (query[2] // heads) * (value[2] // kv_heads)


ATTENTION_COUNTERS: dict[str, Callable[[gs.Node, Shapes], int]] = {
    "Attention": _attention,
    "DecoderMaskedMultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
    "LinearAttention": _linear,
    "MultiHeadAttention": _multi_head,
    "QAttention": _projected,
}
