"""Steps of random graphs with the operators that ONNX Runtime fuses, over token features (N, T, D)."""

from __future__ import annotations

import numpy as np
import onnx
import sequence_steps
from graph_builder import NEWEST_OPSET, Builder, Chooser, Value
from image_steps import Step

MICROSOFT = "com.microsoft"


def _linear(b: Builder, x: Value, outputs: int) -> Value:
    y = b.op("MatMul", [x, b.weight(x.shape[-1], outputs, fan_in=x.shape[-1])], (*x.shape[:-1], outputs))
    return b.binary("Add", y, b.weight(outputs), y.shape) if b.flag() else y


def _scores(b: Builder, x: Value, heads: int) -> str:
    t = x.shape[1]
    return b.weight(*b.pick([(1, heads, t, t), (1, 1, t, t)])) if b.flag() else ""


def projected_attention(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    heads, size, value_size = b.pick([(2, 4, 4), (3, 2, 5), (4, 3, 3)])
    sizes = [heads * size, heads * size, heads * value_size]
    total = sum(sizes)
    explicit = {"qkv_hidden_sizes": sizes} if size != value_size or b.flag() else {}
    inputs = [x, b.weight(d, total, fan_in=d), b.weight(total), "", "", _scores(b, x, heads)]
    unidirectional = int(b.flag())
    return b.op("Attention", inputs, (n, t, sizes[2]), domain=MICROSOFT, num_heads=heads,
                unidirectional=unidirectional, **explicit)  # fmt: skip


def _turned(b: Builder, x: Value, heads: int, tables: list[str]) -> Value:
    places = b.constant(np.tile(np.arange(x.shape[1]), (x.shape[0], 1)))
    return b.op("RotaryEmbedding", [x, places, *tables], x.shape, domain=MICROSOFT, num_heads=heads)


def multi_head(b: Builder, x: Value) -> Value:
    n, t, _ = x.shape
    heads, size, value_size = b.pick([(2, 4, 4), (3, 2, 5), (4, 6, 3), (1, 4, 4)])
    q, k, v = (_linear(b, x, heads * width) for width in (size, size, value_size))
    if b.flag():
        tables = [b.weight(9, size // 2), b.weight(9, size // 2)]
        q, k = _turned(b, q, heads, tables), _turned(b, k, heads, tables)
    bias = b.weight(heads * (2 * size + value_size)) if b.flag() else ""
    inputs = [q, k, v, bias, "", _scores(b, x, heads)]
    return b.op("MultiHeadAttention", inputs, (n, t, heads * value_size), domain=MICROSOFT, num_heads=heads)


def standard_attention(b: Builder, x: Value) -> Value:
    n, t, _ = x.shape
    if b.opset < 23:
        return multi_head(b, x)
    heads, groups, size, value_size = b.pick([(4, 2, 3, 5), (4, 4, 2, 2), (6, 3, 2, 4), (3, 1, 4, 4)])
    parts = [_linear(b, x, width) for width in (heads * size, groups * size, groups * value_size)]
    return b.op("Attention", [*parts, _scores(b, x, heads)], (n, t, heads * value_size), q_num_heads=heads,
                kv_num_heads=groups, is_causal=int(b.flag()))  # fmt: skip


def grouped_query(b: Builder, x: Value) -> Value:
    n, t, _ = x.shape
    heads, groups, size = b.pick([(4, 2, 16), (6, 3, 8), (2, 2, 8)])
    widths = [heads * size, groups * size, groups * size]
    parts = [_linear(b, x, sum(widths)), "", ""] if b.flag() else [_linear(b, x, width) for width in widths]
    lengths = [b.constant(np.full(n, t - 1, np.int32)), b.constant(np.array(t, np.int32))]
    rotary = int(size == 16 and b.flag())
    tables = [b.weight(9, size // 2), b.weight(9, size // 2)] if rotary else []
    return b.op("GroupQueryAttention", [*parts, "", "", *lengths, *tables], (n, t, heads * size), domain=MICROSOFT,
                num_heads=heads, kv_num_heads=groups, do_rotary=rotary)  # fmt: skip


def skip_normalization(b: Builder, x: Value) -> Value:
    d = x.shape[2]
    other = _linear(b, x, d)
    simplified = b.flag()
    op = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    parameters = [b.weight(d) for _ in range((1 if simplified else 2) + b.flag())]
    shapes = [x.shape, (*x.shape[:2], 1), (*x.shape[:2], 1), x.shape]
    y, _, _, total = b.ops(op, [x, other, *parameters], shapes, domain=MICROSOFT, epsilon=0.1)
    return b.binary("Add", y, total, x.shape) if b.flag() else y


def fused_activation(b: Builder, x: Value) -> Value:
    op = b.pick(["BiasGelu", "FastGelu", "QuickGelu", "Gelu"])
    bias = [b.weight(x.shape[2])] if op in ("BiasGelu", "FastGelu") else []
    return b.op(op, [x, *bias], x.shape, domain=MICROSOFT)


def fused_matmul(b: Builder, x: Value) -> Value:
    n, t, d = x.shape
    turn, swap = b.flag(), b.flag()
    source = b.op("Transpose", [x], (n, d, t), perm=[0, 2, 1]) if turn else x
    weight = b.weight(6, d, fan_in=d) if swap else b.weight(d, 6, fan_in=d)
    return b.op("FusedMatMul", [source, weight], (n, t, 6), domain=MICROSOFT, transA=int(turn), transB=int(swap))


FUSED_STEPS: tuple[Step, ...] = (
    projected_attention, multi_head, standard_attention, grouped_query, skip_normalization, fused_activation,
    fused_matmul,
)  # fmt: skip


def random_fused_model(choose: Chooser, most: int = 6) -> onnx.ModelProto:
    """A token model in which every other step, on average, is a fused one."""
    b = Builder(choose, choose.integer(13, NEWEST_OPSET))
    b.live.append(sequence_steps.linear(b, b.input(2, 5, 6)))
    for _ in range(choose.integer(1, most)):
        source = b.live[-1] if choose.integer(0, 3) else b.pick(b.live[1:])
        steps = FUSED_STEPS if b.flag() else sequence_steps.STEPS
        b.live.append(b.pick(steps)(b, source))
    return b.finish([sequence_steps.head(b, b.live[-1])])
