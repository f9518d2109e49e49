"""Products, normalisations and activations that ONNX Runtime fuses: pruning them equals masking them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from corner_graphs import builder, check, classify, conv, groups_of
from graph_builder import Builder, Value
from proving import random_keep
from random_graphs import random_feeds
from spelled_out import spell_out

import onnxprune
from onnxprune import ir
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify
from passes.verify_masking.execution import run
from passes.verify_masking.relaxed import relaxed

MICROSOFT = "com.microsoft"


def linear(b: Builder, x: Value, outputs: int) -> Value:
    return b.op("MatMul", [x, b.weight(x.shape[-1], outputs, fan_in=x.shape[-1])], (*x.shape[:-1], outputs))


def scored(b: Builder, x: Value) -> onnx.ModelProto:
    """Three numbers from a hidden state."""
    return b.finish([linear(b, b.unary("Tanh", x), 3)])


def check_spelled(model: onnx.ModelProto, widths: list[int]) -> None:
    """For operators without a CPU kernel: the proof runs on both models as standard operators."""
    rng = np.random.default_rng(0)
    original, graph = groups_of(model)
    assert sorted(group.width for group in graph.groups) == widths
    keep = {g.name: mask for g in graph.groups if (mask := random_keep(g, rng, 0.4)) is not None}
    small = original.copy()
    prune(small, graph, keep)
    removed = dict(graph.removals(keep))
    (base, same), (pruned, _) = spell_out(ir.to_proto(original)), spell_out(ir.to_proto(small))
    removed.update({new: removed[old] for new, old in same.items() if old in removed})
    verdict = verify(base, pruned, removed, random_feeds(model, rng))
    assert verdict.ok, verdict


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("batch", [0, 1])
def test_matmul_of_a_transposed_activation(trans: int, batch: int) -> None:
    b = builder(17)
    h = linear(b, b.input(2, 5, 6), 8)
    order = [[0, 1, 2], [0, 2, 1]][trans] if not batch else [[1, 0, 2], [2, 0, 1]][trans]
    turned = b.op("Transpose", [h], [h.shape[a] for a in order], perm=order)
    weight = b.weight(2, 8, 7) if batch else b.weight(8, 7)
    y = b.op("FusedMatMul", [turned, weight], (2, 5, 7), domain=MICROSOFT, transA=trans, transBatchA=batch,
             alpha=0.5)  # fmt: skip
    assert check(scored(b, y)) == [7, 8]


@pytest.mark.parametrize("op", ["FusedMatMul", "TransposeMatMul"])
def test_matmul_of_a_transposed_weight(op: str) -> None:
    b = builder(17)
    h = linear(b, b.input(2, 5, 6), 8)
    y = b.op(op, [h, b.weight(7, 8)], (2, 5, 7), domain=MICROSOFT, transB=1)
    assert check(scored(b, y)) == [7, 8]


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("batch", [0, 1])
def test_attention_of_fused_matmuls(batch: int, granularity: str) -> None:
    """Scores as one FusedMatMul: keys transposed inside, heads in front (transBatch) or behind the batch."""
    b = builder(17)
    x = b.input(2, 5, 6)
    perm = [1, 0, 2, 3] if batch else [0, 2, 1, 3]  # (length, batch, heads, size) or (batch, heads, length, size)
    parts = []
    for place in range(3):
        wide = b.reshape(linear(b, x, 12), (0, 0, 3, 4), (2, 5, 3, 4))
        order = [0, 2, 1, 3] if place == 2 else perm
        parts.append(b.op("Transpose", [wide], [wide.shape[p] for p in order], perm=order))
    scores = b.op("FusedMatMul", parts[:2], (2, 3, 5, 5), domain=MICROSOFT, transB=1, transBatchA=batch,
                  transBatchB=batch, alpha=0.5)  # fmt: skip
    mixed = b.op("MatMul", [b.unary("Softmax", scores, axis=-1), parts[2]], (2, 3, 5, 4))
    flat = b.reshape(b.op("Transpose", [mixed], (2, 5, 3, 4), perm=[0, 2, 1, 3]), (0, 0, 12), (2, 5, 12))
    assert check(scored(b, flat), granularity=granularity) == ([3] if granularity == "head" else [4, 4])


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_with_activation(trans_a: int, trans_b: int) -> None:
    b = builder(17)
    h = b.op("FusedGemm", [b.input(5, 6), b.weight(6, 8), b.weight(8)], (5, 8), domain=MICROSOFT, activation="Relu")
    h = b.op("Transpose", [h], (8, 5), perm=[1, 0]) if trans_a else h
    weight = b.weight(7, 8) if trans_b else b.weight(8, 7)
    y = b.op("FusedGemm", [h, weight, b.weight(7)], (5, 7), domain=MICROSOFT, activation="LeakyRelu",
             activation_alpha=0.1, transA=trans_a, transB=trans_b)  # fmt: skip
    assert check(scored(b, y)) == [7, 8]


@pytest.mark.parametrize(("group", "out"), [(1, 8), (2, 8), (6, 6)])
def test_convolution_with_sum_and_activation(group: int, out: int) -> None:
    b = builder(17)
    x = b.input(2, 3, 4, 4)
    h = b.op("FusedConv", [x, b.weight(6, 3, 1, 1), b.weight(6)], (2, 6, 4, 4), domain=MICROSOFT, activation="Relu")
    inputs = [h, b.weight(out, 6 // group, 3, 3), b.weight(out), conv(b, x, out)]
    y = b.op("FusedConv", inputs, (2, out, 4, 4), domain=MICROSOFT, activation="Relu", group=group, pads=[1] * 4)
    assert len(check(b.finish([classify(b, y)]))) == (1 if group == 6 else 2)


@pytest.mark.parametrize("simplified", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("total", [False, True])
def test_normalised_sum(simplified: bool, bias: bool, total: bool) -> None:
    b = builder(17)
    x = b.input(2, 5, 6)
    hidden, skip = linear(b, x, 8), linear(b, x, 8)
    op = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    parameters = [b.weight(8) for _ in range((1 if simplified else 2) + bias)]
    count = 4 if total else 1
    shapes = [(2, 5, 8), (2, 5, 1), (2, 5, 1), (2, 5, 8)][:count]
    y, *more = b.ops(op, [hidden, skip, *parameters], shapes, domain=MICROSOFT, epsilon=1e-3)
    y = b.binary("Add", y, more[-1], y.shape) if total else y
    assert check(scored(b, y)) == [8]


@pytest.mark.parametrize("axis", [-1, 1])
def test_simplified_normalisation(axis: int) -> None:
    b = builder(17)
    h = linear(b, b.input(2, 5, 6), 8)
    y = b.op("SimplifiedLayerNormalization", [h, b.weight(*h.shape[axis:])], h.shape, axis=axis)
    assert check(scored(b, y)) == [8]


@pytest.mark.parametrize("opset", [9, 13, 16])
def test_layer_normalisation_of_the_runtime(opset: int) -> None:
    """ONNX Runtime writes LayerNormalization into the standard domain also before ONNX has it."""
    b = builder(opset)
    h = linear(b, b.input(2, 5, 6), 8)
    y = b.op("LayerNormalization", [h, b.weight(8), b.weight(8)], h.shape)
    assert check(scored(b, y)) == [8]


@pytest.mark.parametrize("total", [False, True])
def test_embedding_with_normalisation(total: bool) -> None:
    b = builder(17)
    ids = b.constant(np.asarray([[0, 3, 5], [1, 1, 2]], np.int32))
    tables = [b.weight(7, 8), b.weight(4, 8), b.weight(2, 8)]
    inputs = [ids, b.constant(np.zeros((2, 3), np.int32)), *tables, b.weight(8), b.weight(8)]
    y, _, *more = b.ops("EmbedLayerNormalization", inputs, [(2, 3, 8), (2,), (2, 3, 8)][: 2 + total], domain=MICROSOFT)
    y = b.binary("Add", y, more[0], y.shape) if total else y
    assert check(scored(b, b.binary("Mul", y, b.input(2, 3, 1), y.shape))) == [8]


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu", "Gelu", "QuickGelu"])
def test_activation(op: str) -> None:
    b = builder(17)
    h = linear(b, b.input(2, 5, 6), 8)
    bias = [b.weight(8)] if op in ("BiasGelu", "FastGelu") else []
    assert check(scored(b, b.op(op, [h, *bias], h.shape, domain=MICROSOFT))) == [8]


def quantized(b: Builder, x: Value, outputs: int, *, bits: int, zeros: str, flat: bool) -> Value:
    inputs, block = x.shape[-1], 16
    blocks = -(-inputs // block)
    packed = b.constant(b.rng.integers(0, 256, (outputs, blocks, block * bits // 8)).astype(np.uint8))
    scales = (b.rng.random((outputs, blocks)) * 0.1 / 2**bits).astype(np.float32)
    points: list[str] = [""]
    if zeros == "packed":
        points = [b.constant(b.rng.integers(0, 256, (outputs, -(-blocks * bits // 8))).astype(np.uint8))]
    elif zeros == "float":
        points = [b.constant((b.rng.random((outputs, blocks)) * 2**bits).astype(np.float32))]
    bias = b.weight(outputs)
    if flat:
        points = [b.constant(b.constants[p].reshape(-1)) if p else "" for p in points]
        scales = scales.reshape(-1)
    tensors = [x, packed, b.constant(scales), *points, "", bias]
    return b.op("MatMulNBits", tensors, (*x.shape[:-1], outputs), domain=MICROSOFT, K=inputs, N=outputs, bits=bits,
                block_size=block)  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "zeros"), [(2, ""), (2, "packed"), (4, ""), (4, "packed"), (4, "float"), (8, ""), (8, "packed")]
)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("hidden", [80, 72])
def test_weight_of_few_bits(bits: int, zeros: str, flat: bool, hidden: int) -> None:
    """Output elements leave one by one, unless a quantized product reads them: then by its blocks of 16.

    Flat scales and zero points get the shape of the blocks in the canonical form.
    """
    b = builder(17)
    h = quantized(b, b.input(2, 5, 32), hidden, bits=bits, zeros=zeros, flat=flat)
    y = quantized(b, b.unary("Relu", h), 20, bits=bits, zeros=zeros, flat=flat)
    model = scored(b, y)
    assert check(onnxprune.canonicalize(model) if flat else model) == [5, 20]


@pytest.mark.parametrize(("bits", "zeros"), [(2, "packed"), (4, ""), (4, "packed"), (4, "float"), (8, "packed")])
def test_relaxed_form_of_few_bits(bits: int, zeros: str) -> None:
    """In real numbers the product is what ONNX Runtime computes; so float16 models can be proved."""
    b = builder(17)
    y = quantized(b, b.input(2, 5, 40), 7, bits=bits, zeros=zeros, flat=False)
    model = b.finish([y])
    feeds = random_feeds(model, np.random.default_rng(0))
    (given,), (real,) = run(model, feeds), run(relaxed(model).model, feeds)
    assert np.allclose(given[y.name], real[y.name], rtol=1e-4, atol=1e-4)


def test_sum_and_halves_of_a_gate() -> None:
    b = builder(20)
    h = linear(b, b.input(2, 5, 6), 12)
    gated = b.op("BiasSplitGelu", [h, b.weight(12)], (2, 5, 6), domain=MICROSOFT)
    same = b.op("BiasAdd", [linear(b, gated, 8), b.weight(8), linear(b, gated, 8)], (2, 5, 8), domain=MICROSOFT)
    y = b.op("BiasDropout", [linear(b, same, 7), b.weight(7), linear(b, same, 7)], (2, 5, 7), domain=MICROSOFT)
    check_spelled(scored(b, y), [6, 7, 8])


@pytest.mark.parametrize("bias", [False, True])
def test_gemm_with_gelu(bias: bool) -> None:
    b = builder(20)
    h = linear(b, b.input(2, 5, 6), 8)
    y = b.op("GemmFastGelu", [h, b.weight(8, 7), *([b.weight(7)] if bias else [])], (2, 5, 7), domain=MICROSOFT)
    check_spelled(scored(b, y), [7, 8])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("skip", [False, True])
def test_channels_last(groups: int, skip: bool) -> None:
    """Convolutions and GroupNorm with the channels behind the positions, as Stable Diffusion's are fused."""
    b = builder(21)
    x = b.input(2, 4, 4, 3)
    shape = (2, 4, 4, 8)
    h = b.op("NhwcConv", [x, b.weight(8, 3, 3, 3), b.weight(8)], shape, domain=MICROSOFT, pads=[1] * 4)
    more = [b.op("NhwcConv", [x, b.weight(8, 3, 1, 1)], shape, domain=MICROSOFT), b.weight(8)] if skip else []
    op = "SkipGroupNorm" if skip else "GroupNorm"
    h = b.op(op, [h, b.weight(8, offset=0.5), b.weight(8), *more], shape, domain=MICROSOFT, groups=groups, activation=1)
    inputs = [h, b.weight(8, 1, 3, 3), b.weight(8), h]
    h = b.op("NhwcFusedConv", inputs, shape, domain=MICROSOFT, group=8, pads=[1] * 4)
    y = b.op("NhwcConv", [h, b.weight(5, 8, 1, 1)], (2, 4, 4, 5), domain=MICROSOFT)
    check_spelled(b.finish([linear(b, y, 3)]), sorted([5, 8 // groups]))


@pytest.mark.parametrize("heads", [(4, 4), (6, 3), (4, 1)])
def test_linear_attention(heads: tuple[int, int]) -> None:
    """Key heads with their query heads; the dimensions of a head span the state and stay."""
    b, (many, few) = builder(27), heads
    x = b.input(2, 5, 6)
    parts = [linear(b, x, width) for width in (many * 3, few * 3, few * 4)]
    y, _ = b.ops("LinearAttention", parts, [(2, 5, many * 4), (2, few, 3, 4)], q_num_heads=many, kv_num_heads=few,
                 update_rule="linear", scale=0.5)  # fmt: skip
    model = scored(b, y)
    assert groups_of(model, "head_dim")[1].groups[0].kind == "head"
    check_spelled(model, [few if few > 1 else many])


@pytest.mark.parametrize("parts", [2, 3])
def test_packed_attention(parts: int) -> None:
    """Keys with values, or all three, in one tensor of five axes; heads leave."""
    b = builder(20)
    x = b.input(2, 5, 6)
    packed = b.reshape(linear(b, x, 4 * parts * 3), (0, 0, 4, parts, 3), (2, 5, 4, parts, 3))
    inputs = [packed] if parts == 3 else [linear(b, x, 12), packed]
    y = b.op("MultiHeadAttention", inputs, (2, 5, 12), domain=MICROSOFT, num_heads=4)
    check_spelled(scored(b, y), [4])


def test_newest_operators() -> None:
    """SwiGLU (opset 28) and a causal convolution (27), which ONNX Runtime does not run yet."""
    b = builder(28)
    x = b.input(2, 5, 6)
    gated = b.op("SwiGLU", [linear(b, x, 8), linear(b, x, 8)], (2, 5, 8))
    turned = b.op("Transpose", [gated], (2, 8, 5), perm=[0, 2, 1])
    y, _ = b.ops("CausalConvWithState", [turned, b.weight(8, 1, 3), b.weight(8)], [(2, 8, 5), (2, 8, 2)])
    check_spelled(scored(b, b.op("Transpose", [y], (2, 5, 8), perm=[0, 2, 1])), [8])
