"""What exported transformers and sequence models showed, each in the smallest graph that shows it."""

from __future__ import annotations

import numpy as np
import pytest
from corner_graphs import builder, check
from graph_builder import Builder, Value

from onnxprune import canonicalize


def attention(b: Builder, x: Value, mask: Value) -> Value:
    """Two heads of four dimensions over five tokens of eight units."""
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        y = b.reshape(b.op("MatMul", [x, b.weight(8, 8, fan_in=8)], x.shape), (0, 0, 2, 4), (2, 5, 2, 4))
        parts.append(b.op("Transpose", [y], [(2, 5, 2, 4)[p] for p in perm], perm=perm))
    scores = b.binary("Add", b.op("MatMul", parts[:2], (2, 2, 5, 5)), mask, (2, 2, 5, 5))
    mixed = b.op("MatMul", [b.unary("Softmax", scores, axis=-1), parts[2]], (2, 2, 5, 4))
    flat = b.reshape(b.op("Transpose", [mixed], (2, 5, 2, 4), perm=[0, 2, 1, 3]), (0, 0, 8), (2, 5, 8))
    return b.op("MatMul", [flat, b.weight(8, 6, fan_in=8)], (2, 5, 6))


def test_mask_expanded_to_a_shape_with_a_computed_batch() -> None:
    """ViT, T5: the mask has no heads, which only the constant entries of the computed target say."""
    b = builder(17)
    x = b.input(2, 5, 8)
    batch = b.op("Gather", [b.op("Shape", [x], (3,)), b.ints([0])], (1,), axis=0)
    target = b.op("Concat", [batch, b.ints([1, 5, 5])], (4,), axis=0)
    mask = b.op("Expand", [b.weight(1, 1, 5, 1), target], (2, 1, 5, 5))
    model = b.finish([attention(b, x, mask)], ["N"])
    assert check(model) == [4, 4]  # dimensions of queries and keys, of values: heads might be broadcast
    assert check(canonicalize(model)) == [2]


@pytest.mark.parametrize("batched", [0, 1])
def test_positions_read_by_tuples_of_numbers(batched: int) -> None:
    """Whisper: `table[positions]` is a GatherND of one number a tuple; its rows have the width of the stream."""
    b = builder(17)
    x = b.input(2, 5, 8)
    places = b.constant(np.arange(10).reshape(2, 5, 1) % 5)
    hidden = b.op("MatMul", [x, b.weight(8, 8, fan_in=8)], x.shape)
    if batched:
        table = b.op("Expand", [b.weight(1, 5, 8), b.ints([2, 5, 8])], (2, 5, 8))
    rows = b.op("GatherND", [table if batched else b.weight(5, 8), places], x.shape, batch_dims=batched)
    y = b.unary("Relu", b.binary("Add", hidden, rows, x.shape))
    assert check(b.finish([b.op("MatMul", [y, b.weight(8, 3)], (2, 5, 3))])) == [8]


def test_elements_picked_along_another_axis() -> None:
    """DeBERTa: scores against distances are picked for every pair of tokens; the other axes may lose elements."""
    b = builder(17)
    x = b.input(2, 5, 8)
    hidden = b.op("MatMul", [x, b.weight(8, 6, fan_in=8)], (2, 5, 6))
    places = b.op("Expand", [b.constant(np.array([[[4], [0], [4]]])), b.ints([2, 3, 6])], (2, 3, 6))
    picked = b.op("GatherElements", [hidden, places], (2, 3, 6), axis=1)
    assert check(b.finish([b.op("MatMul", [picked, b.weight(6, 3)], (2, 3, 3))])) == [6]


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
def test_heads_that_share_an_axis_with_a_dynamic_batch(granularity: str) -> None:
    """Products over (batch * heads): no head can be named, a dimension of all heads can."""
    b = builder(17)
    x = b.input(2, 5, 8)
    q, k, v = (b.op("MatMul", [x, b.weight(8, 8, fan_in=8)], x.shape) for _ in range(3))
    parts = []
    for y, perm in ((q, [0, 1, 2]), (k, [0, 2, 1]), (v, [0, 1, 2])):
        y = b.reshape(b.op("Transpose", [y], (5, 2, 8), perm=[1, 0, 2]), (5, -1, 4), (5, 4, 4))
        y = b.op("Transpose", [y], (4, 5, 4), perm=[1, 0, 2])
        parts.append(b.op("Transpose", [y], [(4, 5, 4)[p] for p in perm], perm=perm))
    scores = b.op("MatMul", parts[:2], (4, 5, 5))
    mixed = b.op("MatMul", [b.unary("Softmax", scores, axis=-1), parts[2]], (4, 5, 4))
    turned = b.op("Transpose", [mixed], (5, 4, 4), perm=[1, 0, 2])
    flat = b.reshape(turned, (5, -1, 8), (5, 2, 8))
    model = b.finish([b.op("MatMul", [flat, b.weight(8, 6, fan_in=8)], (5, 2, 6))], ["N"])
    assert check(model, granularity=granularity) == [4, 4]


@pytest.mark.parametrize(("granularity", "widths"), [("head", [2]), ("head_dim", [4, 4])])
def test_multi_head_attention_of_pytorch_with_a_dynamic_batch(granularity: str, widths: list[int]) -> None:
    """Merged batch and heads are split again behind a permutation: splitting earlier names the heads."""
    b = builder(17)
    x = b.input(2, 5, 8)
    parts = []
    for perm in ([0, 1, 2, 3], [0, 1, 3, 2], [0, 1, 2, 3]):
        y = b.op("Transpose", [b.op("MatMul", [x, b.weight(8, 8, fan_in=8)], x.shape)], (5, 2, 8), perm=[1, 0, 2])
        y = b.op("Transpose", [b.reshape(y, (5, -1, 4), (5, 4, 4))], (4, 5, 4), perm=[1, 0, 2])
        y = b.reshape(y, (-1, 2, 5, 4), (2, 2, 5, 4))
        parts.append(b.op("Transpose", [y], [(2, 2, 5, 4)[p] for p in perm], perm=perm))
    scores = b.op("MatMul", parts[:2], (2, 2, 5, 5))
    mixed = b.op("MatMul", [b.unary("Softmax", scores, axis=-1), parts[2]], (2, 2, 5, 4))
    flat = b.reshape(b.op("Transpose", [mixed], (5, 2, 2, 4), perm=[2, 0, 1, 3]), (-1, 8), (10, 8))
    model = b.finish([b.op("MatMul", [flat, b.weight(8, 6, fan_in=8)], (10, 6))], ["N"])
    assert check(canonicalize(model), granularity=granularity) == widths


def test_positions_expanded_to_the_shape_of_the_embeddings() -> None:
    """XLM: only the batch of that shape is needed, so reading it does not keep the width."""
    b = builder(17)
    x = b.input(2, 5, 8)
    hidden = b.op("MatMul", [x, b.weight(8, 6, fan_in=8)], (2, 5, 6))
    places = b.op("Expand", [b.weight(1, 5, 6), b.op("Shape", [hidden], (3,))], (2, 5, 6))
    y = b.unary("Relu", b.binary("Add", hidden, places, hidden.shape))
    model = b.finish([b.op("MatMul", [y, b.weight(6, 3)], (2, 5, 3))], ["N"])
    assert check(model, 0) == []
    assert check(canonicalize(model)) == [6]


def test_tiles_repeated_as_often_as_the_batch_says() -> None:
    """DeBERTa: the keys of distances, for every sample; the other axes are repeated once, or made here."""
    b = builder(17)
    x = b.input(2, 5, 8)
    hidden = b.op("MatMul", [x, b.weight(8, 6, fan_in=8)], (2, 5, 6))
    batch = b.op("Gather", [b.op("Shape", [x], (3,)), b.ints([0])], (1,), axis=0)
    once = b.op("Tile", [b.weight(1, 5, 6), b.op("Concat", [batch, b.ints([1, 1])], (3,), axis=0)], (2, 5, 6))
    made = b.op("Tile", [b.weight(1, 5, 1), b.op("Concat", [batch, b.ints([1, 6])], (3,), axis=0)], (2, 5, 6))
    y = b.binary("Mul", b.binary("Add", hidden, once, hidden.shape), made, hidden.shape)
    model = b.finish([b.op("MatMul", [y, b.weight(6, 3)], (2, 5, 3))], ["N"])
    assert check(canonicalize(model)) == [6]
