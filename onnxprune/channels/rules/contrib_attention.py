"""Attention and MultiHeadAttention of com.microsoft, as ONNX Runtime's fusions write them.

Specification: onnxruntime/docs/ContribOperators.md. Both have as many key heads as query heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import attribute_ints, integer, is_weight, output, present, rank, ref, static
from onnxprune.channels.links import Barrier, Contract, Link, Produce, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules import heads as digits
from onnxprune.channels.rules.heads import HEAD_DIM, KEY, KV_HEADS, OUTPUT, QUERY, VALUE, VALUE_DIM, attention, share

MICROSOFT = "com.microsoft"
_PROJECTED = (QUERY, KEY, VALUE)
_BIAS = digits.RUNS - len(_PROJECTED)


@op_rule("Attention", domain=MICROSOFT)
def projected_attention(node: gs.Node, opset: int) -> Iterator[Link]:
    """One weight (input, query + key + value) projects the input; `past` holds keys and values in one tensor."""
    x, w = node.inputs[:2]
    if not is_weight(w):
        raise Barrier(f"its weight {w.name} is not constant")
    if integer(node, "do_rotary", 0):
        raise Barrier("Attention turns its keys by tables of its own")
    inside = _projected(node)
    yield from inside.declare()
    yield Tie(ref(w, 0), ref(x, 2))
    yield Contract(ref(w, 0))
    yield Produce(ref(w, 1), "neuron")
    yield from inside.packed(w, 1, _PROJECTED)
    bias = present(node, 2)
    if bias is not None:
        yield from inside.packed(bias, 0, _PROJECTED, _BIAS)
    yield from inside.at(node.outputs[0], {2: OUTPUT})
    for state in (present(node, 4), output(node, 1)):
        for dim in (HEAD_DIM, VALUE_DIM):
            yield from inside.at(state, {2: (KV_HEADS,), 4: (dim,)})
    yield from inside.bias(present(node, 5))


def _projected(node: gs.Node) -> digits.Attention:
    heads, total = integer(node, "num_heads", 0), static(node.inputs[1], 1)
    parts = attribute_ints(node, "qkv_hidden_sizes") or [share(total, 3, "columns")] * 3
    if len(parts) != 3 or parts[0] != parts[1] or sum(parts) != total:
        raise Barrier(f"qkv_hidden_sizes={parts} does not fit a weight of {total} columns")
    return attention(node, heads, heads, share(parts[0], heads, "queries"), share(parts[2], heads, "values"))


@resize_hook("Attention", domain=MICROSOFT)
def resize_projected_attention(node: gs.Node, opset: int, cut: Cut) -> None:
    sizes, w = _projected(node).sizes, node.inputs[1]
    heads, head_dim = sizes[KV_HEADS], sizes[HEAD_DIM]
    columns = cut.kept(w, 1)
    queries = columns[columns < heads * head_dim]
    values = columns[columns >= 2 * heads * head_dim] - 2 * heads * head_dim
    left, left_dim = digits.digits_kept(queries, heads, head_dim)
    node.attrs["num_heads"] = left
    if attribute_ints(node, "qkv_hidden_sizes") or len(queries) != len(values):
        node.attrs["qkv_hidden_sizes"] = [len(queries), len(queries), len(values)]
    if left_dim != head_dim:
        digits.keep_scale(node, head_dim, unset=0.0)


@op_rule("MultiHeadAttention", "DecoderMaskedMultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: gs.Node, opset: int) -> Iterator[Link]:
    """Queries, keys and values projected before: three tensors, keys with values, or all in one."""
    inside, q = _multi_head(node), node.inputs[0]
    yield from inside.declare()
    if rank(q) == 5:
        yield from inside.at(q, {2: (KV_HEADS,), 4: (HEAD_DIM,)})
        yield from inside.at(q, {4: (VALUE_DIM,)})
    elif present(node, 1) is None:
        yield from inside.packed(q, 2, _PROJECTED)
    else:
        yield from inside.at(q, {2: QUERY})
        yield from _keys_and_values(node, inside)
    yield from inside.at(node.outputs[0], {2: OUTPUT})
    bias, scores, key, value = _slots(node)
    if bias is not None:
        yield from inside.packed(bias, 0, _PROJECTED)
    yield from inside.bias(scores)
    for state in (key, output(node, 1)):
        yield from inside.at(state, {1: (KV_HEADS,), 3: (HEAD_DIM,)})
    for state in (value, output(node, 2)):
        yield from inside.at(state, {1: (KV_HEADS,), 3: (VALUE_DIM,)})
    yield from inside.at(output(node, 3), {1: (KV_HEADS,)})
    cached = any(state is not None for state in (key, value, output(node, 1), output(node, 2)))
    if cached or (present(node, 1) is not None and rank(node.inputs[1]) == 4):
        yield from inside.one_head_dim()


def _slots(node: gs.Node) -> tuple[gs.Tensor | None, ...]:
    """Bias of the projections, bias on the scores, past keys and past values."""
    return tuple(present(node, slot) for slot in ((10, 4, 5, 6) if node.op.startswith("Decoder") else (3, 5, 6, 7)))


def _keys_and_values(node: gs.Node, inside: digits.Attention) -> Iterator[Link]:
    key, value = node.inputs[1], present(node, 2)
    if rank(key) == 5:
        yield from inside.at(key, {2: (KV_HEADS,), 4: (HEAD_DIM,)})
        yield from inside.at(key, {4: (VALUE_DIM,)})
    for tensor, places in ((key, KEY), (value, VALUE)):
        if tensor is not None and rank(tensor) == 3:
            yield from inside.at(tensor, {2: places})
        elif tensor is not None and rank(tensor) == 4:
            yield from inside.at(tensor, {1: (KV_HEADS,), 3: (places[-1],)})


def _multi_head(node: gs.Node) -> digits.Attention:
    q, key, value = node.inputs[0], present(node, 1), present(node, 2)
    heads = integer(node, "num_heads", 0)
    if rank(q) == 5:
        return attention(node, heads, heads, static(q, 4), static(q, 4))
    if key is None:
        dim = share(static(q, 2), 3 * heads, "packed elements")
        return attention(node, heads, heads, dim, dim)
    dim = share(static(q, 2), heads, "queries")
    if value is None:
        return attention(node, heads, heads, dim, dim)
    values = static(value, 3) if rank(value) == 4 else share(static(value, 2), heads, "values")
    return attention(node, heads, heads, dim, values)


@resize_hook("MultiHeadAttention", "DecoderMaskedMultiHeadAttention", domain=MICROSOFT)
def resize_multi_head_attention(node: gs.Node, opset: int, cut: Cut) -> None:
    q, sizes = node.inputs[0], _multi_head(node).sizes
    heads, head_dim = sizes[KV_HEADS], sizes[HEAD_DIM]
    if rank(q) == 5:
        left, dim = len(cut.kept(q, 2)), len(cut.kept(q, 4))
    else:
        columns = cut.kept(q, 2)
        left, dim = digits.digits_kept(columns[columns < heads * head_dim], heads, head_dim)
    node.attrs["num_heads"] = left
    if dim != head_dim:
        digits.keep_scale(node, head_dim, unset=0.0)
