"""Attention as exporters write it, from standard operators: each function takes and returns (batch, length, width)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_builder import Builder, Value

HEADS, GROUPS, SIZE, LENGTH, WIDTH = 4, 2, 6, 5, 10
HIDDEN = HEADS * SIZE


def linear(b: Builder, x: Value, outputs: int) -> Value:
    return b.op("MatMul", [x, b.weight(x.shape[-1], outputs, fan_in=x.shape[-1])], (*x.shape[:-1], outputs))


def turned(b: Builder, x: Value, *perm: int) -> Value:
    return b.op("Transpose", [x], [x.shape[p] for p in perm], perm=list(perm))


def in_heads(b: Builder, x: Value, heads: int) -> Value:
    """(batch, length, heads * size) to (batch, heads, length, size)."""
    n, t, d = x.shape
    return turned(b, b.reshape(x, (0, 0, heads, d // heads), (n, t, heads, d // heads)), 0, 2, 1, 3)


def projected(b: Builder, x: Value, heads: int = HEADS) -> list[Value]:
    return [in_heads(b, linear(b, x, count * SIZE), count) for count in (HEADS, heads, heads)]


def attended(b: Builder, q: Value, k: Value, v: Value, bias: Callable[[Value], Value] | None = None) -> Value:
    """softmax(q k' + bias) v, and back to (batch, length, heads * size)."""
    n, h, t, d = q.shape
    scores = b.op("MatMul", [q, turned(b, k, 0, 1, 3, 2)], (n, h, t, t))
    scores = b.binary("Mul", scores, b.constant(np.asarray(0.4, np.float32)), scores.shape)
    weights = b.unary("Softmax", scores if bias is None else bias(scores), axis=-1)
    mixed = b.op("MatMul", [weights, v], (n, h, t, d))
    return b.reshape(turned(b, mixed, 0, 2, 1, 3), (0, 0, h * d), (n, t, h * d))


# queries, keys and values from one weight


def five_axes(b: Builder, x: Value) -> Value:
    """(3, heads, size), turned, and picked by Gather: timm's vision transformers."""
    n, t, _ = x.shape
    packed = b.reshape(linear(b, x, 3 * HIDDEN), (0, 0, 3, HEADS, SIZE), (n, t, 3, HEADS, SIZE))
    packed = turned(b, packed, 2, 0, 3, 1, 4)
    shape = (n, HEADS, t, SIZE)
    return attended(b, *(b.op("Gather", [packed, b.constant(np.asarray(k))], shape, axis=0) for k in range(3)))


def five_axes_split(b: Builder, x: Value) -> Value:
    """The same, by Split and Squeeze."""
    n, t, _ = x.shape
    packed = b.reshape(linear(b, x, 3 * HIDDEN), (0, 0, 3, HEADS, SIZE), (n, t, 3, HEADS, SIZE))
    parts = b.split(turned(b, packed, 2, 0, 3, 1, 4), [1, 1, 1], 0, explicit=True)
    return attended(b, *(b.squeeze("Squeeze", part, [0], (n, HEADS, t, SIZE)) for part in parts))


def packed_by_head(b: Builder, x: Value) -> Value:
    """(heads, 3 * size), then Split: GPT-NeoX."""
    n, t, _ = x.shape
    packed = b.reshape(linear(b, x, 3 * HIDDEN), (0, 0, HEADS, 3 * SIZE), (n, t, HEADS, 3 * SIZE))
    parts = b.split(turned(b, packed, 0, 2, 1, 3), [SIZE] * 3, -1, explicit=True)
    return attended(b, *parts)


def packed_by_head_and_part(b: Builder, x: Value) -> Value:
    """(heads, 3, size), picked by Gather: Bloom."""
    n, t, _ = x.shape
    packed = b.reshape(linear(b, x, 3 * HIDDEN), (0, 0, HEADS, 3, SIZE), (n, t, HEADS, 3, SIZE))
    shape = (n, t, HEADS, SIZE)
    parts = [b.op("Gather", [packed, b.constant(np.asarray(k))], shape, axis=3) for k in range(3)]
    return attended(b, *(turned(b, part, 0, 2, 1, 3) for part in parts))


def batch_of_heads(b: Builder, x: Value) -> Value:
    """Heads beside the batch, (batch * heads, length, size): OPT, M2M, older BART."""
    n, t, _ = x.shape
    flat = [b.reshape(part, (-1, t, SIZE), (n * HEADS, t, SIZE)) for part in projected(b, x)]
    scores = b.op("MatMul", [flat[0], turned(b, flat[1], 0, 2, 1)], (n * HEADS, t, t))
    mixed = b.op("MatMul", [b.unary("Softmax", scores, axis=-1), flat[2]], (n * HEADS, t, SIZE))
    wide = b.reshape(mixed, (-1, HEADS, t, SIZE), (n, HEADS, t, SIZE))
    return b.reshape(turned(b, wide, 0, 2, 1, 3), (0, 0, HIDDEN), (n, t, HIDDEN))


# fewer key heads than query heads


def _repeated(b: Builder, x: Value, how: str) -> Value:
    n, g, t, d = x.shape
    repeats, shape = HEADS // g, (n, HEADS, t, d)
    if how == "gather":
        return b.op("Gather", [x, b.ints(np.repeat(np.arange(g), repeats))], shape, axis=1)
    wide = b.squeeze("Unsqueeze", x, [2], (n, g, 1, t, d))
    if how == "tile":
        many = b.op("Tile", [wide, b.ints([1, 1, repeats, 1, 1])], (n, g, repeats, t, d))
    else:
        many = b.op("Expand", [wide, b.ints([n, g, repeats, t, d])], (n, g, repeats, t, d))
    return b.reshape(many, (n, HEADS, t, d), shape)


def grouped_by_expand(b: Builder, x: Value) -> Value:
    q, k, v = projected(b, x, GROUPS)
    return attended(b, q, _repeated(b, k, "expand"), _repeated(b, v, "expand"))


def grouped_by_tile(b: Builder, x: Value) -> Value:
    q, k, v = projected(b, x, GROUPS)
    return attended(b, q, _repeated(b, k, "tile"), _repeated(b, v, "tile"))


def grouped_by_gather(b: Builder, x: Value) -> Value:
    q, k, v = projected(b, x, GROUPS)
    return attended(b, q, _repeated(b, k, "gather"), _repeated(b, v, "gather"))


def multi_query(b: Builder, x: Value) -> Value:
    """One key head serves all query heads by broadcasting."""
    q, k, v = projected(b, x, 1)
    return attended(b, q, k, v)


# rotary positions


def _angles(b: Builder, *, twice: bool) -> Value:
    """positions x frequencies, (1, 1, length, size or size / 2)."""
    places = b.constant(np.arange(LENGTH, dtype=np.float32).reshape(1, LENGTH, 1))
    frequencies = b.constant((0.5 ** np.arange(SIZE // 2, dtype=np.float32)).reshape(1, 1, SIZE // 2))
    one = b.op("MatMul", [places, frequencies], (1, LENGTH, SIZE // 2))
    angle = b.op("Concat", [one, one], (1, LENGTH, SIZE), axis=-1) if twice else one
    return b.squeeze("Unsqueeze", angle, [1], (1, 1, *angle.shape[1:]))


def _halves_swapped(b: Builder, x: Value, half: int) -> Value:
    first, second = b.slice(x, 3, 0, half), b.slice(x, 3, half, 2**31 - 1)
    return b.op("Concat", [b.unary("Neg", second), first], x.shape, axis=-1)


def _turn(b: Builder, x: Value, swapped: Value, cos: Value | str, sin: Value | str) -> Value:
    return b.binary("Add", b.binary("Mul", x, cos, x.shape), b.binary("Mul", swapped, sin, x.shape), x.shape)


def rotary_computed(b: Builder, x: Value) -> Value:
    """Tables from positions and frequencies, halves swapped: Llama."""
    angle = _angles(b, twice=True)
    cos, sin = b.unary("Cos", angle), b.unary("Sin", angle)
    q, k, v = projected(b, x)
    return attended(b, *(_turn(b, part, _halves_swapped(b, part, SIZE // 2), cos, sin) for part in (q, k)), v)


def rotary_cached(b: Builder, x: Value) -> Value:
    """Tables as initializers, picked by position."""
    places = b.constant(np.arange(LENGTH)[None])
    tables = [b.op("Gather", [b.weight(9, SIZE), places], (1, LENGTH, SIZE), axis=0) for _ in range(2)]
    cos, sin = (b.squeeze("Unsqueeze", table, [1], (1, 1, LENGTH, SIZE)) for table in tables)
    q, k, v = projected(b, x)
    return attended(b, *(_turn(b, part, _halves_swapped(b, part, SIZE // 2), cos, sin) for part in (q, k)), v)


def rotary_partial(b: Builder, x: Value) -> Value:
    """Only four of a head's elements turn: GPT-NeoX, Phi."""
    cos, sin = b.weight(1, 1, LENGTH, 4), b.weight(1, 1, LENGTH, 4)

    def turn(part: Value) -> Value:
        moving, rest = b.slice(part, 3, 0, 4), b.slice(part, 3, 4, 2**31 - 1)
        moved = _turn(b, moving, _halves_swapped(b, moving, 2), cos, sin)
        return b.op("Concat", [moved, rest], part.shape, axis=-1)

    q, k, v = projected(b, x)
    return attended(b, turn(q), turn(k), v)


def rotary_in_pairs(b: Builder, x: Value) -> Value:
    """Neighbours turn together, as an axis of two: GPT-J, RoFormer."""
    angle = _angles(b, twice=False)
    cos, sin = b.unary("Cos", angle), b.unary("Sin", angle)

    def turn(part: Value) -> Value:
        n, h, t, d = part.shape
        pairs = b.reshape(part, (n, h, t, d // 2, 2), (n, h, t, d // 2, 2))
        even, odd = b.split(pairs, [1, 1], -1, explicit=True)
        even, odd = (b.squeeze("Squeeze", each, [4], (n, h, t, d // 2)) for each in (even, odd))
        left = b.binary("Sub", b.binary("Mul", even, cos, even.shape), b.binary("Mul", odd, sin, odd.shape), even.shape)
        right = b.binary(
            "Add", b.binary("Mul", even, sin, even.shape), b.binary("Mul", odd, cos, odd.shape), even.shape
        )
        both = [b.squeeze("Unsqueeze", each, [4], (n, h, t, d // 2, 1)) for each in (left, right)]
        return b.reshape(b.op("Concat", both, (n, h, t, d // 2, 2), axis=-1), (n, h, t, d), part.shape)

    q, k, v = projected(b, x)
    return attended(b, turn(q), turn(k), v)


def rotary_by_steps(b: Builder, x: Value) -> Value:
    """Neighbours turn together, taken by slices with a step of two."""
    cos, sin = b.weight(1, 1, LENGTH, SIZE), b.weight(1, 1, LENGTH, SIZE)

    def swap(part: Value) -> Value:
        n, h, t, d = part.shape
        even, odd = b.slice(part, 3, 0, 2**31 - 1, 2), b.slice(part, 3, 1, 2**31 - 1, 2)
        both = [b.squeeze("Unsqueeze", each, [4], (n, h, t, d // 2, 1)) for each in (b.unary("Neg", odd), even)]
        return b.reshape(b.op("Concat", both, (n, h, t, d // 2, 2), axis=-1), (n, h, t, d), part.shape)

    q, k, v = projected(b, x)
    return attended(b, *(_turn(b, part, swap(part), cos, sin) for part in (q, k)), v)


def normalised_heads(b: Builder, x: Value) -> Value:
    """RMS normalisation of queries and keys over a head: Qwen3."""

    def norm(part: Value) -> Value:
        mean = b.reduce("ReduceMean", b.binary("Pow", part, b.constant(np.float32(2.0)), part.shape), [-1])
        root = b.unary("Sqrt", b.binary("Add", mean, b.constant(np.float32(1e-5)), mean.shape))
        scaled = b.binary("Mul", part, b.unary("Reciprocal", root), part.shape)
        return b.binary("Mul", scaled, b.weight(SIZE), part.shape)

    q, k, v = projected(b, x)
    return attended(b, norm(q), norm(k), v)


# what is added to the scores


def _added(b: Builder, bias: Value | str) -> Callable[[Value], Value]:
    return lambda scores: b.binary("Add", scores, bias, scores.shape)


def relative_bias(b: Builder, x: Value) -> Value:
    """A table of buckets by heads: T5."""
    buckets = b.constant(np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH)))
    bias = b.op("Gather", [b.weight(9, HEADS), buckets], (LENGTH, LENGTH, HEADS), axis=0)
    bias = b.squeeze("Unsqueeze", turned(b, bias, 2, 0, 1), [0], (1, HEADS, LENGTH, LENGTH))
    return attended(b, *projected(b, x), _added(b, bias))


def window_bias(b: Builder, x: Value) -> Value:
    """A table of offsets by heads, read flat and folded: Swin. Its mask sees windows apart from the batch."""
    n, h, t = x.shape[0], HEADS, LENGTH
    index = b.constant(np.abs(np.arange(t)[:, None] - np.arange(t)).reshape(-1))
    bias = b.op("Gather", [b.weight(9, h), index], (t * t, h), axis=0)
    bias = turned(b, b.reshape(bias, (t, t, -1), (t, t, h)), 2, 0, 1)
    bias = b.squeeze("Unsqueeze", bias, [0], (1, h, t, t))
    mask = b.weight(1, n, 1, t, t)

    def masked(scores: Value) -> Value:
        scores = b.binary("Add", scores, bias, scores.shape)
        apart = b.binary("Add", b.reshape(scores, (1, n, h, t, t), (1, n, h, t, t)), mask, (1, n, h, t, t))
        return b.reshape(apart, (-1, h, t, t), scores.shape)

    return attended(b, *projected(b, x), masked)


def linear_bias(b: Builder, x: Value) -> Value:
    """A slope for each head times the distance: ALiBi."""
    distance = b.constant((np.arange(LENGTH) - np.arange(LENGTH)[:, None]).astype(np.float32)[None, None])
    bias = b.op("Mul", [b.weight(1, HEADS, 1, 1), distance], (1, HEADS, LENGTH, LENGTH))
    return attended(b, *projected(b, x), _added(b, bias))


def causal_by_where(b: Builder, x: Value) -> Value:
    mask = b.constant(np.tril(np.ones((1, 1, LENGTH, LENGTH), bool)))
    low = b.constant(np.float32(-1e9))
    return attended(b, *projected(b, x), lambda s: b.op("Where", [mask, s, low], s.shape))


def causal_by_trilu(b: Builder, x: Value) -> Value:
    full = b.constant(np.full((LENGTH, LENGTH), -1e9, np.float32))
    mask = b.op("Trilu", [full, b.constant(np.asarray(1))], (LENGTH, LENGTH), upper=1)
    return attended(b, *projected(b, x), _added(b, mask))


def causal_for_each_head(b: Builder, x: Value) -> Value:
    """The mask is expanded over the heads first."""
    mask = b.constant(np.triu(np.full((1, 1, LENGTH, LENGTH), -1e9, np.float32), 1))
    shape = (x.shape[0], HEADS, LENGTH, LENGTH)
    return attended(b, *projected(b, x), _added(b, b.op("Expand", [mask, b.ints(shape)], shape)))


# gated feed-forward networks


def swiglu(b: Builder, x: Value) -> Value:
    gate, up = linear(b, x, 12), linear(b, x, 12)
    active = b.binary("Mul", gate, b.unary("Sigmoid", gate), gate.shape)
    return b.binary("Mul", active, up, up.shape)


def swiglu_packed(b: Builder, x: Value) -> Value:
    gate, up = b.split(linear(b, x, 24), [12, 12], -1, explicit=True)
    active = b.binary("Mul", gate, b.unary("Sigmoid", gate), gate.shape)
    return b.binary("Mul", active, up, up.shape)


def geglu_sliced(b: Builder, x: Value) -> Value:
    packed = linear(b, x, 24)
    up, gate = b.slice(packed, 2, 0, 12), b.slice(packed, 2, 12, 2**31 - 1)
    return b.binary("Mul", up, b.unary("Erf", gate), up.shape)


ONE_TENSOR = (five_axes, five_axes_split, packed_by_head_and_part)
APART = (
    packed_by_head, normalised_heads, relative_bias, window_bias, linear_bias, causal_by_where, causal_by_trilu,
    causal_for_each_head,
)  # fmt: skip
GROUPED = (grouped_by_expand, grouped_by_tile, grouped_by_gather)
ROTARY = (rotary_computed, rotary_cached, rotary_in_pairs, rotary_by_steps)
GATED = (swiglu, swiglu_packed, geglu_sliced)
