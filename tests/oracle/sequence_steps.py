"""Steps of random graphs over token features (N, T, D): projections, attention, normalisation, recurrence."""

from __future__ import annotations

import numpy as np
from einsum_steps import einsum, einsum_attention
from graph_builder import Builder, Value
from image_steps import Step
from recurrence_steps import recurrent, stacked


def linear(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    out = b.pick([4, 6, 8])
    y = b.op("MatMul", [x, b.weight(d, out, fan_in=d)], (n, t, out))
    return b.binary("Add", y, b.weight(out), y.shape) if b.flag() else y


def feed_forward(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    y = b.op("MatMul", [x, b.weight(d, 12, fan_in=d)], (n, t, 12))
    y = b.unary(b.pick(["Relu", "Tanh", "Sigmoid"]), b.binary("Add", b.weight(12), y, y.shape))
    y = b.op("MatMul", [y, b.weight(12, d, fan_in=12)], x.shape)
    return b.binary("Add", x, y, x.shape)


def gated_feed_forward(b: Builder, x: Value) -> Value:
    """One projection, split into value and gate."""
    n, t, d = x.shape
    y = b.op("MatMul", [x, b.weight(d, 12, fan_in=d)], (n, t, 12))
    value, gate = b.split(y, [6, 6], -1, explicit=b.flag())
    y = b.binary("Mul", value, b.unary("Sigmoid", gate), value.shape)
    return b.op("MatMul", [y, b.weight(6, d, fan_in=6)], x.shape)


def flat_gemm(b: Builder, x: Value) -> Value:
    """(N, T, D) -> (N*T, D) -> Gemm -> back."""
    n, t, d = x.shape
    flat = b.reshape(x, b.pick([(-1, d), (n * t, d), (n * t, -1)]), (n * t, d))
    y = b.op("Gemm", [flat, b.weight(6, d, fan_in=d), b.weight(6)], (n * t, 6), transB=1)
    return b.reshape(b.unary("Relu", y), b.pick([(n, t, 6), (-1, t, 6), (n, t, -1)]), (n, t, 6))


def layer_norm(b: Builder, x: Value) -> Value:
    d = x.shape[2]
    if b.opset >= 23 and b.flag():
        return b.op("RMSNormalization", [x, b.weight(d)], x.shape, axis=-1)
    if b.opset >= 17 and b.flag():
        return b.op("LayerNormalization", [x, b.weight(d), b.weight(d)], x.shape)
    centred = b.binary("Sub", x, b.reduce("ReduceMean", x, [-1]), x.shape)
    if b.flag():
        squared = b.binary("Pow", centred, b.constant(np.asarray(2.0, np.float32)), x.shape)
    else:
        squared = b.op("Mul", [centred, centred], x.shape)
    variance = b.binary("Add", b.reduce("ReduceMean", squared, [2]), b.weight(1, offset=0.2), (*x.shape[:2], 1))
    y = b.binary("Div", centred, b.unary("Sqrt", variance), x.shape)
    return b.binary("Add", b.binary("Mul", y, b.weight(d), x.shape), b.weight(d), x.shape)


def _heads(b: Builder, x: Value, heads: int, size: int, perm: list[int]) -> Value:
    n, t, _ = x.shape
    wide = (n, t, heads, size)
    y = b.reshape(x, b.pick([wide, (0, 0, heads, size), (n, -1, heads, size), (0, 0, -1, size)]), wide)
    return b.op("Transpose", [y], [wide[p] for p in perm], perm=perm)


def attention(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    heads, size, value_size = b.pick([(2, 4, 4), (3, 2, 2), (2, 3, 5), (1, 4, 4)])
    fused = value_size == size and b.flag()
    if fused:
        qkv = b.op("MatMul", [x, b.weight(d, 3 * heads * size, fan_in=d)], (n, t, 3 * heads * size))
        q, k, v = b.split(qkv, [heads * size] * 3, -1, explicit=b.flag())
    else:
        widths = [heads * size, heads * size, heads * value_size]
        q, k, v = (b.op("MatMul", [x, b.weight(d, w, fan_in=d)], (n, t, w)) for w in widths)
        q = b.binary("Add", q, b.weight(q.shape[-1]), q.shape)
        v = b.binary("Add", v, b.weight(v.shape[-1]), v.shape)
    q, v = _heads(b, q, heads, size, [0, 2, 1, 3]), _heads(b, v, heads, value_size, [0, 2, 1, 3])
    k = _heads(b, k, heads, size, [0, 2, 3, 1])
    scores = b.op("MatMul", [q, k], (n, heads, t, t))
    scale = b.weight(*b.pick([(), (1,), (heads, 1, 1)]), offset=0.5)
    scores = b.binary(b.pick(["Mul", "Div"]), scores, scale, scores.shape)
    if b.flag():
        scores = b.binary("Add", scores, b.weight(*b.pick([(t, t), (1, 1, t, t), (1, heads, t, t)])), scores.shape)
    weights = b.unary("Softmax", scores, axis=3)
    mixed = b.op("MatMul", [weights, v], (n, heads, t, value_size))
    turned = b.op("Transpose", [mixed], (n, t, heads, value_size), perm=[0, 2, 1, 3])
    width = heads * value_size
    flat = b.reshape(turned, b.pick([(n, t, width), (0, 0, -1), (n, t, -1), (0, -1, width)]), (n, t, width))
    y = b.op("MatMul", [flat, b.weight(width, d, fan_in=width)], x.shape)
    return b.binary("Add", x, y, x.shape) if b.flag() else y


def token_activation(b: Builder, x: Value) -> Value:
    return b.unary(b.pick(["Relu", "Tanh", "Softplus", "Elu"]), x)


def feature_softmax(b: Builder, x: Value) -> Value:
    return b.unary("Softmax", x, axis=2)


def token_scale(b: Builder, x: Value) -> Value:
    _n, t, d = x.shape
    return b.binary(
        b.pick(["Mul", "Add"]), x, b.weight(*b.pick([(d,), (t, d), (t, 1), (1, 1, d)]), offset=0.5), x.shape
    )


def token_join(b: Builder, x: Value) -> Value:
    others = [v for v in b.live if len(v.shape) == 3 and v.shape[:2] == x.shape[:2] and v.shape[2] + x.shape[2] <= 24]
    other = b.pick(others or [x])
    if other.shape == x.shape and b.flag():
        return b.binary("Add", x, other, x.shape)
    return b.op("Concat", [x, other], (*x.shape[:2], x.shape[2] + other.shape[2]), axis=b.pick([2, -1]))


def conv1d(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    y = b.op("Transpose", [x], (n, d, t), perm=[0, 2, 1])
    y = b.op("Conv", [y, b.weight(6, d, 3, fan_in=3 * d), b.weight(6)], (n, 6, t), pads=[1, 1], kernel_shape=[3])
    return b.op("Transpose", [y], (n, t, 6), perm=[0, 2, 1])


def pick_token(b: Builder, x: Value) -> Value:
    """One token (a class token) times a gate over the others."""
    n, _t, d = x.shape
    one = b.op("Gather", [x, b.constant(np.asarray(0, np.int64))], (n, d), axis=1)
    gate = b.op("Gemm", [one, b.weight(d, d, fan_in=d), b.weight(d)], (n, d))
    return b.binary("Mul", x, b.squeeze("Unsqueeze", b.unary("Sigmoid", gate), [1], (n, 1, d)), x.shape)


def token_barrier(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    kind = b.pick(["gram", "transpose", "LpNormalization", "ArgMax"])
    if kind == "gram":  # both operands are the same tensor
        turned = b.op("Transpose", [x], (n, d, t), perm=[0, 2, 1])
        return b.op("MatMul", [b.op("MatMul", [x, turned], (n, t, t)), x], x.shape)
    if kind == "transpose":  # the same axis as rows and as columns
        turned = b.op("Transpose", [x], (n, d, t), perm=[0, 2, 1])
        return b.op("MatMul", [x, b.op("MatMul", [turned, x], (n, d, d))], x.shape)
    if kind == "LpNormalization":
        return b.unary("LpNormalization", x, axis=-1)
    best = b.op("ArgMax", [x], (n, t, 1), axis=2)
    return b.binary("Add", x, b.op("Cast", [best], (n, t, 1), to=1), x.shape)


STEPS: tuple[Step, ...] = (
    linear, linear, feed_forward, feed_forward, gated_feed_forward, flat_gemm, layer_norm, layer_norm, attention,
    attention, attention, token_activation, feature_softmax, token_scale, token_join, conv1d, pick_token, recurrent,
    recurrent, stacked, einsum, einsum, einsum_attention, token_barrier,
)  # fmt: skip


def head(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    kind = b.pick(["token", "mean", "flatten", "map"])
    if kind == "map":
        return b.op("MatMul", [x, b.weight(d, 3, fan_in=d)], (n, t, 3))
    if kind == "token":
        flat = b.op("Gather", [x, b.constant(np.asarray(b.pick([0, -1 if b.opset >= 11 else 0])))], (n, d), axis=1)
    elif kind == "mean":
        flat = b.reduce("ReduceMean", x, [1], keepdims=False)
    else:
        flat = b.op("Flatten", [x], (n, t * d))
    size = flat.shape[1]
    return b.op("Gemm", [flat, b.weight(size, 5, fan_in=size), b.weight(5)], (n, 5))
