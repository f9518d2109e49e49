"""Attention and LinearAttention of the standard domain: heads as an axis of their own, or packed into the last axis."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, output, present, rank, static
from onnxprune.channels.links import AxisRef, Barrier, Link, Pin
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.heads import (
    HEAD_DIM,
    HEADS,
    KEY,
    KV_HEADS,
    OUTPUT,
    QUERY,
    REPEATS,
    VALUE,
    VALUE_DIM,
    Attention,
    attention,
    keep_scale,
    kept,
    share,
)


@op_rule("Attention", since=23)
def scaled_dot_product(node: gs.Node, opset: int) -> Iterator[Link]:
    """(batch, heads, length, size), or (batch, length, heads * size) with the head counts as attributes."""
    q, k, v = node.inputs[:3]
    inside, y = _inside(node), node.outputs[0]
    yield from inside.declare()
    if rank(q) == 4:
        for tensor, heads, dim in ((q, HEADS, HEAD_DIM), (k, (KV_HEADS,), HEAD_DIM), (v, (KV_HEADS,), VALUE_DIM)):
            yield from inside.at(tensor, {1: heads, 3: (dim,)})
        yield from inside.at(y, {1: HEADS, 3: (VALUE_DIM,)})
    else:
        for tensor, places in ((q, QUERY), (k, KEY), (v, VALUE), (y, OUTPUT)):
            yield from inside.at(tensor, {2: places})
    yield from inside.bias(present(node, 3))
    for tensor in (present(node, 4), output(node, 1)):
        yield from inside.at(tensor, {1: (KV_HEADS,), 3: (HEAD_DIM,)})
    for tensor in (present(node, 5), output(node, 2)):
        yield from inside.at(tensor, {1: (KV_HEADS,), 3: (VALUE_DIM,)})
    yield from inside.at(output(node, 3), {1: HEADS})


def _inside(node: gs.Node) -> Attention:
    q, k, v = node.inputs[:3]
    if rank(q) == 4:
        return attention(node, static(q, 1), static(k, 1), static(q, 3), static(v, 3))
    heads, kv_heads = integer(node, "q_num_heads", 0), integer(node, "kv_num_heads", 0)
    head_dim, value_dim = share(static(q, 2), heads, "queries"), share(static(v, 2), kv_heads, "values")
    return attention(node, heads, kv_heads, head_dim, value_dim)


@resize_hook("Attention")
def resize_attention(node: gs.Node, opset: int, cut: Cut) -> None:
    q, sizes = node.inputs[0], _inside(node).sizes
    if rank(q) == 4:
        head_dim = len(cut.kept(q, 3))
    else:
        kv_heads, repeats, head_dim = kept(cut, q, 2, sizes[KV_HEADS], sizes[REPEATS], sizes[HEAD_DIM])
        node.attrs["q_num_heads"], node.attrs["kv_num_heads"] = kv_heads * repeats, kv_heads
    if head_dim != sizes[HEAD_DIM]:
        keep_scale(node, sizes[HEAD_DIM])


@op_rule("LinearAttention", since=27)
def linear_attention(node: gs.Node, opset: int) -> Iterator[Link]:
    """Whole heads may leave: the head dimensions of keys and values span the recurrent state."""
    q, k, v = node.inputs[:3]
    inside = _linear(node)
    yield from inside.declare()
    for dim in (HEAD_DIM, VALUE_DIM):
        if inside.sizes[dim] != 1:
            yield Pin(AxisRef(inside.node, (dim,)), "it spans the recurrent state")
    for tensor, places in ((q, QUERY), (k, KEY), (v, VALUE), (node.outputs[0], OUTPUT)):
        yield from inside.at(tensor, {2: places})
    for tensor in (present(node, 3), output(node, 1)):
        yield from inside.at(tensor, {1: (KV_HEADS,), 2: (HEAD_DIM,), 3: (VALUE_DIM,)})
    decay, beta = present(node, 4), present(node, 5)
    if decay is not None:
        each = static(decay, 2) == inside.sizes[KV_HEADS]
        yield from inside.at(decay, {2: (KV_HEADS,) if each else KEY})
    if beta is not None and static(beta, 2) != 1:
        yield from inside.at(beta, {2: (KV_HEADS,)})


def _linear(node: gs.Node) -> Attention:
    q, _, v = node.inputs[:3]
    heads, kv_heads = integer(node, "q_num_heads", 0), integer(node, "kv_num_heads", 0)
    if rank(q) != 3:
        raise Barrier(f"LinearAttention of rank {rank(q)}")
    return attention(
        node, heads, kv_heads, share(static(q, 2), heads, "queries"), share(static(v, 2), kv_heads, "values")
    )


@resize_hook("LinearAttention")
def resize_linear_attention(node: gs.Node, opset: int, cut: Cut) -> None:
    q, sizes = node.inputs[0], _linear(node).sizes
    kv_heads, repeats, _ = kept(cut, q, 2, sizes[KV_HEADS], sizes[REPEATS], sizes[HEAD_DIM])
    node.attrs["q_num_heads"], node.attrs["kv_num_heads"] = kv_heads * repeats, kv_heads
