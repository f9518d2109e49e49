"""Fused attention: heads, key groups and head dimensions leave together; what is left equals the masked original."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import channels, ir
from onnxprune.errors import UsageError

MICROSOFT = "com.microsoft"
HEADS, SIZE, LENGTH = 4, 6, 5
HIDDEN = HEADS * SIZE


def analysed(net, *outputs: str, granularity: str = "head") -> tuple[ir.Model, channels.ChannelGraph]:
    model = net.model(*outputs)
    ir.infer_shapes(model)
    return model, channels.analyze(model, granularity=granularity)


def widths(graph: channels.ChannelGraph, *kinds: str) -> list[int]:
    return [group.width for group in graph.groups if group.kind in kinds]


def projections(net, x: str, inputs: int, *outputs: int) -> list[str]:
    return [net.op("Add", net.linear(x, inputs, n), net.weight(n)) for n in outputs]


def ending(net, y: str, inputs: int) -> str:
    return net.linear(net.op("Relu", y), inputs, 3)


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("value_size", [SIZE, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention(net, prove, granularity: str, value_size: int, bias: bool) -> None:
    net = net(17)
    x = net.input("N", LENGTH, 8)
    q, k, v = projections(net, x, 8, HIDDEN, HIDDEN, HEADS * value_size)
    more = [net.weight(2 * HIDDEN + HEADS * value_size), "", net.weight(1, HEADS, LENGTH, LENGTH)] if bias else []
    y = net.op("MultiHeadAttention", q, k, v, *more, domain=MICROSOFT, num_heads=HEADS)
    model, graph = analysed(net, ending(net, y, HEADS * value_size), granularity=granularity)
    assert widths(graph, granularity) == ([HEADS] if granularity == "head" else [SIZE, value_size])
    pruned = prove(model, graph, N=2)
    node = next(n for n in pruned.graph.nodes if n.op == "MultiHeadAttention")
    assert node.attrs["num_heads"] == (2 if granularity == "head" else HEADS)
    assert ("scale" in node.attrs) == (granularity == "head_dim")


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("sizes", [None, (HIDDEN, HIDDEN, HIDDEN), (HIDDEN, HIDDEN, HEADS * 5)])
def test_attention_with_its_projection(net, prove, granularity: str, sizes: tuple[int, ...] | None) -> None:
    net = net(17)
    x = net.op("Relu", net.linear(net.input("N", LENGTH, 8), 8, 10))
    columns = sum(sizes or (HIDDEN,) * 3)
    extra = {} if sizes is None else {"qkv_hidden_sizes": list(sizes)}
    inputs = [x, net.weight(10, columns), net.weight(columns), "", "", net.weight(1, HEADS, LENGTH, LENGTH)]
    y = net.op("Attention", *inputs, domain=MICROSOFT, num_heads=HEADS, **extra)
    values = HIDDEN if sizes is None else sizes[2]
    model, graph = analysed(net, ending(net, y, values), granularity=granularity)
    expected = [HEADS] if granularity == "head" else [SIZE, values // HEADS]
    assert widths(graph, granularity) == expected
    assert widths(graph, "neuron") == [10]
    prove(model, graph, N=2)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("granularity", ["head", "head_dim"])
def test_grouped_query_attention(net, prove, granularity: str, packed: bool, rotary: bool) -> None:
    """A unit is a key head with its query heads. The kernel wants head dimensions in multiples of 8 and 16."""
    net, size, groups = net(17), 32, 3
    x = net.input(2, LENGTH, 8)
    q, k, v = 6 * size, groups * size, groups * size
    parts = [net.linear(x, 8, q + k + v), "", ""] if packed else [net.linear(x, 8, n) for n in (q, k, v)]
    lengths = net.constant(np.full(2, LENGTH - 1, np.int32))
    tables = [net.weight(9, size // 2), net.weight(9, size // 2)] if rotary else []
    inputs = [*parts, "", "", lengths, net.constant(np.array(LENGTH, np.int32)), *tables]
    heads = {"num_heads": 6, "kv_num_heads": groups, "do_rotary": int(rotary)}
    y = net.op("GroupQueryAttention", *inputs, domain=MICROSOFT, **heads)
    model, graph = analysed(net, ending(net, y, q), granularity=granularity)
    (group,) = graph.groups
    assert group.kind == granularity
    assert (group.width, group.multiple_of) == ((3, 1) if granularity == "head" else (16, 8) if rotary else (32, 8))
    keep = np.ones(group.width, bool)
    if granularity == "head_dim":
        keep[0] = False
        with pytest.raises(UsageError, match="a multiple of 8"):
            graph.removals({group.name: keep})
    keep[[0, 2] if granularity == "head" else np.arange(0, group.width, 2)] = False
    pruned = prove(model, graph, {group.name: keep})
    node = next(n for n in pruned.graph.nodes if n.op == "GroupQueryAttention")
    assert (node.attrs["num_heads"], node.attrs["kv_num_heads"]) == ((2, 1) if granularity == "head" else (6, 3))


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
def test_scores_of_grouped_heads(net, prove, granularity: str) -> None:
    """A bias on the scores and a sink, one number a query head, leave with their heads."""
    net = net(17)
    x = net.input(2, LENGTH, 8)
    parts = [net.linear(x, 8, n) for n in (6 * 16, 3 * 16, 3 * 16)]
    lengths = [net.constant(np.full(2, LENGTH - 1, np.int32)), net.constant(np.array(LENGTH, np.int32))]
    inputs = [*parts, "", "", *lengths, "", "", "", net.weight(1, 6, LENGTH, LENGTH), net.weight(6)]
    y = net.op("GroupQueryAttention", *inputs, domain=MICROSOFT, num_heads=6, kv_num_heads=3)
    model, graph = analysed(net, ending(net, y, 6 * 16), granularity=granularity)
    assert widths(graph, granularity) == [3 if granularity == "head" else 16]
    prove(model, graph)


def test_query_heads_where_the_cache_is_the_callers(net, prove) -> None:
    """Key heads are inputs and outputs of the model. Query heads at one place of every group still leave."""
    net, size = net(17), 8
    x = net.input(1, LENGTH, 8)
    cache = [net.input(1, 2, 4, size, name=name) for name in ("past_key", "past_value")]
    q, k, v = (net.linear(x, 8, n) for n in (6 * size, 2 * size, 2 * size))
    lengths, total = net.constant(np.full(1, LENGTH + 3, np.int32)), net.constant(np.array(LENGTH + 4, np.int32))
    y, *present = net.ops(
        "GroupQueryAttention", 3, q, k, v, *cache, lengths, total, domain=MICROSOFT, num_heads=6, kv_num_heads=2
    )
    model, graph = analysed(net, ending(net, y, 6 * size), *present)
    (group,) = graph.groups
    assert (group.kind, group.width) == ("head", 3)
    prove(model, graph)


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
def test_attention_of_the_standard(net, prove, rank: int, granularity: str, heads: tuple[int, int]) -> None:
    net, value_size = net(23), 5
    many, few = heads
    x = net.input(2, LENGTH, 8)
    parts = [net.linear(x, 8, n) for n in (many * SIZE, few * SIZE, few * value_size)]
    counts: dict[str, object] = {"q_num_heads": many, "kv_num_heads": few}
    if rank == 4:
        counts = {}
        for place, (count, size) in enumerate(((many, SIZE), (few, SIZE), (few, value_size))):
            wide = net.op("Reshape", parts[place], net.ints(0, 0, count, size))
            parts[place] = net.op("Transpose", wide, perm=[0, 2, 1, 3])
    mask = net.weight(many, LENGTH, LENGTH)
    y = net.op("Attention", *parts, mask, is_causal=1, softcap=2.0, **counts)
    if rank == 4:
        y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, -1))
    model, graph = analysed(net, ending(net, y, many * value_size), granularity=granularity)
    if granularity == "head":
        assert widths(graph, "head") == ([few] if few > 1 else [4])
    else:
        assert widths(graph, "head_dim") == [SIZE, value_size]
    prove(model, graph)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turning", [SIZE, 4])
@pytest.mark.parametrize("domain", ["", MICROSOFT])
@pytest.mark.parametrize("granularity", ["head", "head_dim"])
def test_rotary_embedding(net, prove, granularity: str, domain: str, turning: int, interleaved: int) -> None:
    """The elements that turn leave in pairs, with a column of the tables; the others leave alone."""
    net = net(23)
    x = net.input(2, LENGTH, 8)
    q, k, v = (net.linear(x, 8, HIDDEN) for _ in range(3))
    places = net.constant(np.tile(np.arange(LENGTH), (2, 1)))
    tables = [net.weight(9, turning // 2), net.weight(9, turning // 2)]
    partial = {"num_heads": HEADS, "rotary_embedding_dim": turning} if turning < SIZE else {"num_heads": HEADS}
    for part in (q, k):
        inputs = [part, places, *tables] if domain else [part, *tables, places]
        turned = net.op("RotaryEmbedding", *inputs, domain=domain, interleaved=interleaved, **partial)
        q, k = (turned, k) if part == q else (q, turned)
    y = net.op("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=HEADS)
    model, graph = analysed(net, ending(net, y, HIDDEN), granularity=granularity)
    pairs = [turning // 2] + ([SIZE - turning] if turning < SIZE else [])
    assert widths(graph, granularity) == ([HEADS] if granularity == "head" else [*pairs, SIZE])
    prove(model, graph)


@pytest.mark.parametrize("kept", [0, 1])
def test_states_that_the_caller_holds_freeze_the_heads(net, kept: int) -> None:
    net = net(17)
    x = net.input(2, LENGTH, 8)
    past = net.input(2, 2, HEADS, 3, SIZE, name="past") if kept else ""
    y, present = net.ops(
        "Attention",
        2,
        x,
        net.weight(8, 3 * HIDDEN),
        net.weight(3 * HIDDEN),
        "",
        past,
        domain=MICROSOFT,
        num_heads=HEADS,
    )
    _, graph = analysed(net, ending(net, y, HIDDEN), present)
    assert not widths(graph, "head", "head_dim")
    assert any("graph" in frozen.reason for frozen in graph.frozen)


def test_score_bias_that_is_computed_by_heads(net, prove) -> None:
    """A table of relative positions, one column a head (T5), looked up and turned."""
    net = net(17)
    x = net.input(2, LENGTH, 8)
    q, k, v = (net.linear(x, 8, HIDDEN) for _ in range(3))
    buckets = net.constant(np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH)))
    table = net.op("Gather", net.weight(9, HEADS), buckets)
    bias = net.op("Unsqueeze", net.op("Transpose", table, perm=[2, 0, 1]), net.ints(0))
    y = net.op("MultiHeadAttention", q, k, v, "", "", bias, domain=MICROSOFT, num_heads=HEADS)
    model, graph = analysed(net, ending(net, y, HIDDEN))
    assert widths(graph, "head", "embedding") == [HEADS]
    prove(model, graph)


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("cross", [False, True])
def test_decoder_step(net, prove, granularity: str, cross: bool) -> None:
    """DecoderMaskedMultiHeadAttention: one token against a buffer of its own, or against keys that were projected."""
    net = net(17)
    x = net.input(2, 1, 8)
    q = net.linear(x, 8, HIDDEN)
    attributes = {"domain": MICROSOFT, "num_heads": HEADS}
    if cross:
        memory = net.input(2, LENGTH, 8, name="memory")
        wide = [net.op("Reshape", net.linear(memory, 8, HIDDEN), net.ints(0, 0, HEADS, SIZE)) for _ in range(2)]
        states = [net.op("Transpose", part, perm=[0, 2, 1, 3]) for part in wide]
        y = net.op("DecoderMaskedMultiHeadAttention", q, *states, **attributes)
    else:
        k, v = net.linear(x, 8, HIDDEN), net.linear(x, 8, HIDDEN)
        buffers = [net.op("Tanh", net.weight(2, HEADS, LENGTH, SIZE)) for _ in range(2)]
        inputs = [q, k, v, "", net.weight(1, HEADS, 1, 4), *buffers, net.constant(np.array([3], np.int32)), "", ""]
        y, _, _ = net.ops(
            "DecoderMaskedMultiHeadAttention",
            3,
            *inputs,
            net.weight(3 * HIDDEN),
            past_present_share_buffer=1,
            **attributes,
        )
    model, graph = analysed(net, ending(net, y, HIDDEN), granularity=granularity)
    assert widths(graph, granularity) == [HEADS if granularity == "head" else SIZE]
    prove(model, graph)


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
def test_attention_over_a_learned_prefix(net, prove, granularity: str) -> None:
    """Past keys and values of the standard operator come from weights; scores go to an output of their own use."""
    net = net(23)
    x = net.input(2, LENGTH, 8)
    q, k, v = (net.linear(x, 8, n) for n in (HIDDEN, HIDDEN // 2, HEADS // 2 * 5))
    prefix = [net.weight(2, HEADS // 2, 3, SIZE), net.weight(2, HEADS // 2, 3, 5)]
    y = net.ops("Attention", 3, q, k, v, "", *prefix, q_num_heads=HEADS, kv_num_heads=HEADS // 2)[0]
    model, graph = analysed(net, ending(net, y, HEADS * 5), granularity=granularity)
    assert widths(graph, granularity) == ([HEADS // 2] if granularity == "head" else [SIZE, 5])
    prove(model, graph)


def test_multi_head_attention_over_a_cache_of_its_own(net, prove) -> None:
    """Past keys and values come from weights: a learned prefix. Its heads leave with the others."""
    net = net(17)
    x = net.input(2, LENGTH, 8)
    q, k, v = (net.linear(x, 8, HIDDEN) for _ in range(3))
    prefix = [net.weight(2, HEADS, 3, SIZE) for _ in range(2)]
    y = net.ops("MultiHeadAttention", 3, q, k, v, "", "", "", *prefix, domain=MICROSOFT, num_heads=HEADS)[0]
    for granularity in ("head", "head_dim"):
        model, graph = analysed(net, ending(net, y, HIDDEN), granularity=granularity)
        assert widths(graph, granularity) == [HEADS if granularity == "head" else SIZE]
        prove(model, graph)
