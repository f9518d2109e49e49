"""GroupQueryAttention of com.microsoft: several query heads share a key head, and may be turned by rotary tables.

A unit is a key head with its query heads; where the key heads stay (they are a cache that the caller holds), query
heads at one place of every group are. Specification: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, output, present, ref, static
from onnxprune.channels.links import AxisRef, Barrier, Link, Multiple, Pin, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules import heads as digits
from onnxprune.channels.rules.heads import HEAD_DIM, HEADS, KEY, KV_HEADS, QUERY, REPEATS, attention, share
from onnxprune.channels.rules.rotary import pairs

MICROSOFT = "com.microsoft"
# the output and the values have the head dimension of the queries
_OUTPUT, _VALUE = QUERY, KEY
_COS, _SIN, _SCORES, _SINK, _SCALES, _NORMS = 7, 8, 10, 11, (12, 13), (14, 15)


@op_rule("GroupQueryAttention", domain=MICROSOFT)
def grouped_query_attention(node: gs.Node, opset: int) -> Iterator[Link]:
    """Without keys, the queries hold all three, packed. The kernel wants head dimensions in multiples of 8 (16 where it
    turns them).
    """
    inside, q = _inside(node), node.inputs[0]
    if any(present(node, slot) is not None for slot in _SCALES):
        raise Barrier("its cache is quantized")
    dim = AxisRef(inside.node, (HEAD_DIM,))
    yield from inside.declare()
    if present(node, 1) is None:
        yield from inside.packed(q, 2, (QUERY, KEY, _VALUE))
    else:
        for tensor, places in ((q, QUERY), (node.inputs[1], KEY), (present(node, 2), _VALUE)):
            yield from inside.at(tensor, {2: places})
    yield from inside.at(node.outputs[0], {2: _OUTPUT})
    for state in (present(node, 3), present(node, 4), output(node, 1), output(node, 2)):
        yield from inside.at(state, {1: (KV_HEADS,), 3: (HEAD_DIM,)})
    yield from inside.bias(present(node, _SCORES))
    yield from inside.at(present(node, _SINK), {0: HEADS})
    yield from inside.at(output(node, 3), {1: HEADS})
    for norm in (present(node, slot) for slot in _NORMS):
        if norm is not None:
            yield from inside.at(norm, {0: (HEAD_DIM,)})
            yield Pin(dim, "queries and keys are normalised over it")
    yield Multiple(dim, 16 if integer(node, "do_rotary", 0) else 8)
    yield from _rotary(node, inside, dim)


def _rotary(node: gs.Node, inside: digits.Attention, dim: AxisRef) -> Iterator[Link]:
    if not integer(node, "do_rotary", 0):
        return
    for table in (present(node, _COS), present(node, _SIN)):
        if table is None:
            raise Barrier("it turns its queries without tables")
        interleaved = bool(integer(node, "rotary_interleaved", 0))
        yield Tie(ref(table, 1), dim, pairs(static(table, 1), inside.sizes[HEAD_DIM], interleaved=interleaved))


def _inside(node: gs.Node) -> digits.Attention:
    heads, kv_heads = integer(node, "num_heads", 0), integer(node, "kv_num_heads", 0)
    packed = 2 * kv_heads if present(node, 1) is None else 0
    dim = share(static(node.inputs[0], 2), heads + packed, "queries")
    return attention(node, heads, kv_heads, dim, 1)


@resize_hook("GroupQueryAttention", domain=MICROSOFT)
def resize_grouped_query_attention(node: gs.Node, opset: int, cut: Cut) -> None:
    sizes = _inside(node).sizes
    columns = cut.kept(node.inputs[0], 2)
    columns = columns[columns < sizes[KV_HEADS] * sizes[REPEATS] * sizes[HEAD_DIM]]
    kv_heads, repeats, dim = digits.digits_kept(columns, sizes[KV_HEADS], sizes[REPEATS], sizes[HEAD_DIM])
    node.attrs["num_heads"], node.attrs["kv_num_heads"] = kv_heads * repeats, kv_heads
    if dim != sizes[HEAD_DIM]:
        digits.keep_scale(node, sizes[HEAD_DIM], unset=0.0)
