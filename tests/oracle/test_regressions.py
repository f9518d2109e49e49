"""Products, normalisations, weights and branches in corners of the operator specification: right, or not pruned."""

from __future__ import annotations

import numpy as np
import pytest
from corner_graphs import builder, check, classify, conv, groups_of
from graph_builder import Builder, Value
from onnx import TensorProto, helper

from onnxprune import channels, ir


@pytest.mark.parametrize("opset", [7, 8])
def test_batch_norm_over_every_element(opset: int) -> None:
    """spatial=0 (opset 7 and 8): scale and bias have the whole feature shape; after the transpose rows are channels."""
    b = builder(opset)
    x = b.input(2, 3, 4, 4)
    y = b.op("Transpose", [conv(b, x, 6)], (2, 4, 6, 4), perm=[0, 2, 1, 3])
    parameters = [b.weight(4, 6, 4, offset=0.5) for _ in range(4)]
    y = b.op("BatchNormalization", [y, *parameters], y.shape, spatial=0)
    y = b.op("Transpose", [y], (2, 6, 4, 4), perm=[0, 2, 1, 3])
    _, graph = groups_of(b.finish([classify(b, y)]))
    assert not graph.groups


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax_of_old_opsets_is_flat(opset: int, axis: int) -> None:
    b = builder(opset)
    x = b.input(2, 3, 4, 4)
    y = b.unary("Softmax", conv(b, x, 6), axis=axis)
    check(b.finish([classify(b, y)]), 0)


def test_softmax_default_axis_changed() -> None:
    for opset in (12, 13):
        b = builder(opset)
        x = b.input(2, 3, 4, 4)
        check(b.finish([classify(b, b.unary("Softmax", conv(b, x, 6)))]))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [(5,), (1,), (2, 5), (2, 1), ()])
def test_gemm_forms(trans_a: int, trans_b: int, bias: tuple[int, ...]) -> None:
    b = builder(13)
    x = b.input(2, 6)
    h = b.op("Gemm", [x, b.weight(6, 8), b.weight(8)], (2, 8), alpha=0.5)
    h = b.op("Transpose", [h], (8, 2), perm=[1, 0]) if trans_a else h
    weight = b.weight(5, 8) if trans_b else b.weight(8, 5)
    y = b.op("Gemm", [h, weight, b.weight(*bias)], (2, 5), transA=trans_a, transB=trans_b, beta=0.5)
    assert check(b.finish([b.op("Gemm", [b.unary("Relu", y), b.weight(5, 3)], (2, 3))])) == [5, 8]


def test_weight_on_the_left_of_matmul() -> None:
    b = builder(13)
    x = b.input(2, 6, 5)
    h = b.unary("Relu", b.op("MatMul", [b.weight(8, 6), x], (2, 8, 5)))
    assert check(b.finish([b.op("MatMul", [b.weight(3, 8), h], (2, 3, 5))])) == [8]


def test_matmul_with_vectors() -> None:
    b = builder(13)
    x = b.input(2, 6)
    h = b.unary("Relu", b.op("MatMul", [x, b.weight(6, 8)], (2, 8)))
    assert check(b.finish([b.op("MatMul", [h, b.weight(8)], (2,))])) == [8]


def test_weight_that_is_also_an_output() -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    out = classify(b, y)
    bias = next(n for n, v in b.constants.items() if v.shape == (6,))
    copy = b.op("Identity", [bias], (6,))
    check(b.finish([out, copy]), 0)
    _, graph = groups_of(b.finish([out, copy]))
    assert not graph.groups


def test_initializer_that_a_caller_may_override() -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    model = b.finish([classify(b, conv(b, x, 6))])
    weight = next(t for t in model.graph.initializer if list(t.dims) == [6, 3, 1, 1])
    model.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, weight.dims))
    _, graph = groups_of(model)
    assert not graph.groups


def test_tensor_that_a_branch_captures() -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    branches = []
    for name, scale in (("then", 1.0), ("else", 2.0)):
        factor = helper.make_node("Constant", [], [f"{name}_k"], value_float=scale)
        node = helper.make_node("Mul", [y.name, f"{name}_k"], [f"{name}_y"])
        info = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, y.shape)
        branches.append(helper.make_graph([factor, node], name, [], [info]))
    condition = b.constant(np.asarray(True))
    z = b.op("If", [condition], y.shape, then_branch=branches[0], else_branch=branches[1])
    _, graph = groups_of_captured(b, z, y)
    assert not graph.groups


def groups_of_captured(b: Builder, z: Value, y: Value) -> tuple[ir.Model, channels.ChannelGraph]:
    model = b.finish([classify(b, z), classify(b, y)])
    return groups_of(model)


def test_tied_embedding() -> None:
    """One table looks tokens up and, transposed, scores them."""
    b = builder(13)
    ids = b.constant(np.asarray([[0, 3, 5], [1, 1, 2]], np.int64))
    table = b.weight(7, 6)
    x = b.op("Gather", [table, ids], (2, 3, 6), axis=0)
    y = b.input(2, 3, 6)
    h = b.binary("Add", x, b.op("MatMul", [y, b.weight(6, 6)], (2, 3, 6)), (2, 3, 6))
    turned = b.op("Transpose", [table], (6, 7), perm=[1, 0])
    check(b.finish([b.op("MatMul", [h, turned], (2, 3, 7))]), 0)


def test_weight_used_as_producer_and_as_operand() -> None:
    """A convolution's weight is also added to, as data, elsewhere."""
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    weight = b.weight(4, 4, 1, 1)
    y = b.op("Conv", [x, weight], (2, 4, 4, 4))
    row = b.reshape(Value(weight, (4, 4, 1, 1)), (1, 4, 4, 1), (1, 4, 4, 1))
    z = b.binary("Add", b.unary("Relu", y), row, y.shape)
    check(b.finish([classify(b, z)]), 0)


@pytest.mark.parametrize(("groups", "out"), [(2, 8), (4, 4), (4, 8), (8, 8), (8, 16)])
def test_grouped_convolutions(groups: int, out: int) -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = b.unary("Sigmoid", conv(b, x, 8))
    z = b.op("Conv", [y, b.weight(out, 8 // groups, 3, 3), b.weight(out)], (2, out, 4, 4), group=groups, pads=[1] * 4)
    check(b.finish([classify(b, z)]))


@pytest.mark.parametrize(("groups", "per_group"), [(1, 5), (2, 3), (8, 1), (8, 2)])
def test_grouped_transposed_convolutions(groups: int, per_group: int) -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = b.unary("Sigmoid", conv(b, x, 8))
    out = groups * per_group
    z = b.op("ConvTranspose", [y, b.weight(8, per_group, 2, 2), b.weight(out)], (2, out, 5, 5), group=groups)
    check(b.finish([classify(b, z)]))


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool_counts(include: int, ceil_mode: int) -> None:
    b = builder(19)
    x = b.input(2, 3, 5, 5)
    y = b.op("AveragePool", [conv(b, x, 6)], (2, 6, 3, 3), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
             count_include_pad=include, ceil_mode=ceil_mode)  # fmt: skip
    assert check(b.finish([classify(b, y)])) == [6]


def test_max_pool_indices() -> None:
    """Positions are flat over channels."""
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y, where = b.ops("MaxPool", [conv(b, x, 6)], [(2, 6, 2, 2)] * 2, kernel_shape=[2, 2], strides=[2, 2])
    z = b.op("MaxUnpool", [y, where], (2, 6, 4, 4), kernel_shape=[2, 2], strides=[2, 2])
    check(b.finish([classify(b, z)]), 0)


def test_recurrent_network_between_matrices() -> None:
    b = builder(14)
    x = b.input(5, 2, 6)
    h = b.op("MatMul", [x, b.weight(6, 8)], (5, 2, 8))
    y = b.op("GRU", [h, b.weight(1, 12, 8), b.weight(1, 12, 4)], (5, 1, 2, 4), hidden_size=4)
    flat = b.squeeze("Squeeze", y, [1], (5, 2, 4))
    check(b.finish([b.op("MatMul", [flat, b.weight(4, 3)], (5, 2, 3))]), 0)


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
def test_attention_with_dynamic_batch_and_length(granularity: str) -> None:
    b = builder(17)
    x = b.input(2, 5, 6)
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        y = b.op("MatMul", [x, b.weight(6, 8, fan_in=6)], (2, 5, 8))
        y = b.reshape(y, (0, 0, 2, 4), (2, 5, 2, 4))
        parts.append(b.op("Transpose", [y], [(2, 5, 2, 4)[p] for p in perm], perm=perm))
    scores = b.op("MatMul", parts[:2], (2, 2, 5, 5))
    mixed = b.op("MatMul", [b.unary("Softmax", scores, axis=-1), parts[2]], (2, 2, 5, 4))
    turned = b.op("Transpose", [mixed], (2, 5, 2, 4), perm=[0, 2, 1, 3])
    flat = b.reshape(turned, (0, 0, 8), (2, 5, 8))
    model = b.finish([b.op("MatMul", [flat, b.weight(8, 6, fan_in=8)], (2, 5, 6))], ["N", "T"])
    widths = check(model, granularity=granularity)
    assert widths == ([2] if granularity == "head" else [4, 4])


def _quantized(b: Builder, x: Value, out: int, axis: int | None, block: int = 0) -> Value:
    """A convolution whose weight is int8 behind DequantizeLinear: per tensor, per channel, or in blocks of inputs."""
    n, c, h, w = x.shape
    values = b.constant(b.rng.integers(-127, 128, (out, c, 1, 1)).astype(np.int8))
    if block:
        scale = b.weight(out, c // block, 1, 1, offset=0.5)
        weight = b.op("DequantizeLinear", [values, scale], (out, c, 1, 1), axis=1, block_size=block)
    elif axis is None:
        weight = b.op("DequantizeLinear", [values, b.weight(offset=0.5)], (out, c, 1, 1))
    else:
        size = (out, c)[axis % 4]
        zero = b.constant(b.rng.integers(-5, 5, size).astype(np.int8))
        weight = b.op("DequantizeLinear", [values, b.weight(size, offset=0.5), zero], (out, c, 1, 1), axis=axis)
    scaled = b.op("Div", [x, b.constant(np.asarray(300.0, np.float32))], x.shape)
    return b.op("Conv", [scaled, weight, b.weight(out)], (n, out, h, w))


@pytest.mark.parametrize(("axis", "block"), [(None, 0), (0, 0), (-4, 0), (1, 0), (None, 2)])
def test_quantized_weights(axis: int | None, block: int) -> None:
    b = builder(21)
    x = b.input(2, 4, 4, 4)
    y = b.unary("Relu", _quantized(b, x, 8, None if block else 0))
    model = b.finish([_quantized(b, y, 4, axis, block)])
    check(model, 0 if block else 1)


def test_quantized_activations() -> None:
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    y = conv(b, x, 6)
    zero = b.constant(np.asarray(3, np.uint8))
    for scale in (b.constant(np.asarray(0.05, np.float32)), b.weight(6, offset=0.05)):
        size = b.constants[scale].shape
        zeros = zero if not size else b.constant(np.full(size, 3, np.uint8))
        code = b.op("QuantizeLinear", [y, scale, zeros], y.shape, axis=1)
        y = b.op("DequantizeLinear", [code, scale, zeros], y.shape, axis=1)
    check(b.finish([classify(b, y)]), 0)


@pytest.mark.parametrize("op", ["ReduceProd", "ReduceLogSum", "ReduceSumSquare"])
def test_other_reductions(op: str) -> None:
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    y = b.unary("Sigmoid", conv(b, x, 5))
    check(b.finish([classify(b, b.binary("Mul", y, b.reduce(op, y, [1]), y.shape))]))


@pytest.mark.parametrize("op", ["Mean", "Min", "Max"])
def test_variadic_with_three_operands(op: str) -> None:
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    y = b.op(op, [conv(b, x, 6), b.weight(6, 1, 1), conv(b, x, 1)], (2, 6, 4, 4))
    assert check(b.finish([classify(b, y)])) == [6]


def test_comparison_of_channels_with_a_vector() -> None:
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    y = conv(b, x, 6)
    low, high = (b.op(op, [y, b.weight(1, 6, 1, 1)], y.shape) for op in ("LessOrEqual", "Greater"))
    both = b.op("Xor", [low, b.op("Not", [high], y.shape)], y.shape)
    z = b.op("Where", [b.op("Or", [both, high], y.shape), y, b.weight(6, 4, 4)], y.shape)
    assert check(b.finish([classify(b, z)])) == [6]


def test_a_single_channel_minus_its_own_mean() -> None:
    """What is left is rounding, 0 on one side and 1e-17 on the other: errors are measured by the unpruned output."""
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    mean = b.reduce("ReduceMean", y, [1])
    assert check(b.finish([classify(b, b.binary("Sub", y, mean, y.shape))])) == [6]
