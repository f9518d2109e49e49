"""Slices, pads, gathers, reshapes and sizes in corners of the operator specification: right, or not pruned."""

from __future__ import annotations

import numpy as np
import pytest
from corner_graphs import builder, check, classify, conv, groups_of
from onnx import TensorProto, helper


def test_operand_of_unknown_size_spans_a_broadcast_axis() -> None:
    """Shape inference has no answer for the sliced operand; its six channels are added to six prunable ones."""
    b = builder(9)
    x = b.input(2, 3, 4, 4)
    sliced = b.slice(conv(b, x, 8), -3, 1, -1)
    other = conv(b, x, 6)
    model = b.finish([classify(b, b.binary("Mul", sliced, other, other.shape))])
    check(model, 0)


def test_batched_operand_of_unknown_size() -> None:
    """(N, heads, t, d) x (N, heads, d, t) where only one operand's head count is known."""
    b = builder(9)
    x = b.input(2, 5, 6)
    q = b.op("MatMul", [x, b.weight(6, 8)], (2, 5, 8))
    k = b.op("MatMul", [x, b.weight(6, 16)], (2, 5, 16))
    q = b.op("Transpose", [b.reshape(q, (2, 5, 2, 4), (2, 5, 2, 4))], (2, 2, 5, 4), perm=[0, 2, 1, 3])
    k = b.op("Transpose", [b.reshape(k, (2, 5, 4, 4), (2, 5, 4, 4))], (2, 4, 4, 5), perm=[0, 2, 3, 1])
    k = b.slice(k, -3, 1, -1)
    scores = b.op("MatMul", [q, k], (2, 2, 5, 5))
    flat = b.reshape(scores, (2, -1), (2, 50))
    check(b.finish([b.op("MatMul", [flat, b.weight(50, 3)], (2, 3))]), 0)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("bounds", [(1, 7, 1), (-1, -(2**31), -2), (0, 8, 3)])
def test_slice_bounds_share_one_type(dtype: type, bounds: tuple[int, int, int]) -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 8)
    start, end, step = bounds
    count = len(range(8)[slice(start, None if end < -8 else end, step)])
    names = [b.constant(np.asarray([v], dtype)) for v in (start, end, 1, step)]
    z = b.op("Slice", [y, *names], (2, count, 4, 4))
    check(b.finish([classify(b, z), classify(b, y)]))


def test_slice_bounds_shared_with_another_axis() -> None:
    """One constant bounds channels here and rows there."""
    b = builder(13)
    x = b.input(2, 3, 8, 8)
    y = conv(b, x, 8)
    start, end, axis = b.ints([2]), b.ints([6]), b.ints([1])
    z = b.op("Slice", [y, start, end, axis], (2, 4, 8, 8))
    rows = b.op("Slice", [x, start, end, b.ints([2])], (2, 3, 4, 8))
    check(b.finish([classify(b, z), classify(b, rows)]))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_of_every_single_axis(opset: int) -> None:
    """Without axes, Squeeze would also take a channel axis that is pruned to one element."""
    b = builder(opset)
    x = b.input(2, 3, 4, 4)
    y = b.op("GlobalAveragePool", [conv(b, x, 4)], (2, 4, 1, 1))
    z = b.op("Squeeze", [y], (2, 4))
    check(b.finish([b.op("MatMul", [z, b.weight(4, 3)], (2, 3))]), 0)


def test_shape_that_leaves_the_graph() -> None:
    """A shape vector is an output of the graph and also feeds a Gather."""
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    shape = b.op("Shape", [y], (4,))
    batch = b.op("Gather", [shape, b.ints([0])], (1,), axis=0)
    target = b.op("Concat", [batch, b.ints([-1])], (2,), axis=0)
    out = classify(b, y)
    model = b.finish([b.op("Reshape", [out, target], (2, 48))])
    model.graph.output.append(helper.make_tensor_value_info(shape.name, TensorProto.INT64, [4]))
    check(model, 0)
    _, graph = groups_of(model)
    assert not graph.groups


def test_size_of_a_pruned_tensor_as_a_number() -> None:
    """Multiplying by the channel count that Shape reads: the count must not change under pruning."""
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    count = b.op("Gather", [b.op("Shape", [y], (4,)), b.constant(np.asarray(1, np.int64))], (), axis=0)
    scaled = b.op("Div", [y, b.op("Cast", [count], (), to=1)], y.shape)
    _, graph = groups_of(b.finish([classify(b, scaled)]))
    assert not graph.groups


def test_gather_with_a_scalar_and_negative_indices() -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 8)
    last = b.op("Gather", [y, b.constant(np.asarray(-1, np.int64))], (2, 4, 4), axis=1)
    some = b.op("Gather", [y, b.constant(np.asarray([-1, 3, 3, -8], np.int32))], (2, 4, 4, 4), axis=-3)
    last = b.squeeze("Unsqueeze", last, [1], (2, 1, 4, 4))
    check(b.finish([classify(b, b.binary("Mul", some, last, some.shape)), classify(b, y)]))


def test_gather_with_a_matrix_of_indices() -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 8)
    picked = b.op("Gather", [y, b.ints(np.array([[0, 2], [2, 5]]))], (2, 2, 2, 4, 4), axis=1)
    flat = b.reshape(picked, (2, 4, 4, 4), (2, 4, 4, 4))
    check(b.finish([classify(b, flat), classify(b, y)]))


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_pad_that_repeats_channels(mode: str) -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = b.op("Pad", [conv(b, x, 6), b.ints([0, 1, 0, 0, 0, 1, 0, 0])], (2, 8, 4, 4), mode=mode)
    check(b.finish([classify(b, y)]), 0)


@pytest.mark.parametrize("pads", [(-1, 0), (0, -2), (-1, 2), (3, -1)])
def test_pad_that_crops_channels(pads: tuple[int, int]) -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    z = b.pad(y, 1, *pads, 0.25)
    branch = conv(b, x, z.shape[1])
    check(b.finish([classify(b, b.binary("Add", z, branch, z.shape)), classify(b, y)]))


@pytest.mark.parametrize("axes", [[1], [-3], [1, 2], []])
@pytest.mark.parametrize("opset", [13, 18])
def test_pad_axes_and_order(axes: list[int], opset: int) -> None:
    """Opset 18 names the padded axes; before it all are named, interleaved as begins and ends."""
    b = builder(opset)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    fill = b.constant(np.asarray(1.5, np.float32))
    if opset >= 18 and axes:
        begins = [1] + [1] * (len(axes) - 1)
        z = b.op("Pad", [y, b.ints(begins * 2), fill, b.ints(axes)], (2, 8, 4 + 2 * (len(axes) - 1), 4))
    else:
        z = b.op("Pad", [y, b.ints([0, 1, 0, 0, 0, 1, 0, 0]), fill], (2, 8, 4, 4))
    other = b.op("ConvTranspose", [y, b.weight(6, 8, z.shape[2] - 3, 1)], z.shape)
    check(b.finish([classify(b, b.binary("Add", z, other, z.shape))]))


@pytest.mark.parametrize("target", [(0, -1), (2, 96), (-1, 96), (2, -1), (0, 96)])
@pytest.mark.parametrize("symbol", ["", "N"])
def test_reshape_targets(target: tuple[int, int], symbol: str) -> None:
    b = builder(14)
    x = b.input(2, 3, 4, 4)
    flat = b.reshape(conv(b, x, 6), target, (2, 96))
    model = b.finish([b.op("MatMul", [flat, b.weight(96, 3)], (2, 3))], [symbol] if symbol else [])
    check(model, 0 if symbol and target[0] == 2 else 1)


def test_one_reshape_target_for_two_tensors() -> None:
    """The same initializer shapes a prunable tensor and one that stays."""
    b = builder(13)
    x = b.input(2, 6, 4, 4)
    target = b.ints([2, 96])
    flat = b.op("Reshape", [conv(b, x, 6), target], (2, 96))
    other = b.op("Reshape", [x, target], (2, 96))
    out = [b.op("MatMul", [flat, b.weight(96, 3)], (2, 3)), b.op("MatMul", [other, b.weight(96, 3)], (2, 3))]
    check(b.finish(out))


def test_reshape_with_allowzero() -> None:
    b = builder(14)
    x = b.input(2, 3, 4, 4)
    flat = b.op("Reshape", [conv(b, x, 6), b.ints([2, 96])], (2, 96), allowzero=1)
    check(b.finish([b.op("MatMul", [flat, b.weight(96, 3)], (2, 3))]))


def test_reshape_that_mixes_channels_with_rows() -> None:
    """(6, 4) to (4, 6): no digit is common, nothing may leave."""
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    mixed = b.reshape(conv(b, x, 6), (2, 4, 6, 4), (2, 4, 6, 4))
    _, graph = groups_of(b.finish([classify(b, mixed)]))
    assert not graph.groups


def test_split_with_an_uneven_last_part() -> None:
    b = builder(18)
    x = b.input(2, 3, 4, 4)
    parts = b.ops("Split", [conv(b, x, 7)], [(2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 4, 4)], axis=1, num_outputs=3)
    y = b.binary("Add", parts[0], parts[1], parts[0].shape)
    y = b.binary("Mul", y, parts[2], y.shape)
    check(b.finish([classify(b, y)]))


def test_resize_by_sizes_with_axes() -> None:
    b = builder(18)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    up = b.op("Resize", [y, "", "", b.ints([8, 8])], (2, 6, 8, 8), axes=[2, 3], mode="linear")
    whole = b.op("Resize", [y, "", "", b.ints([2, 6, 8, 8])], (2, 6, 8, 8), mode="nearest")
    check(b.finish([classify(b, b.binary("Add", up, whole, up.shape))]))


def test_expand_of_a_vector() -> None:
    b = builder(13)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 6)
    gate = b.op("Expand", [b.weight(1, 6, 1, 1), b.ints([2, 1, 4, 4])], y.shape)
    flat = b.op("Expand", [b.weight(1), b.ints([2, 6, 4, 4])], y.shape)
    check(b.finish([classify(b, b.op("Sum", [y, gate, flat], y.shape))]))


def test_constant_of_shape_and_type_of_another() -> None:
    b = builder(15)
    x = b.input(2, 4, 4, 4)
    y, other = conv(b, x, 6), conv(b, x, 5)
    fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [0.5])
    made = b.op("ConstantOfShape", [b.ints([2, 6, 1, 1])], (2, 6, 1, 1), value=fill)
    alike = b.op("CastLike", [b.binary("Add", y, made, y.shape), other], y.shape)
    check(b.finish([classify(b, alike), classify(b, other)]), 2)


def test_swapped_batch_and_channels() -> None:
    """After the transpose the channels are a batch: they are multiplied one by one, and still leave together."""
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    y = b.op("Transpose", [conv(b, x, 6)], (6, 2, 4, 4), perm=[1, 0, 2, 3])
    z = b.op("MatMul", [y, b.weight(6, 1, 4, 4)], (6, 2, 4, 4))
    back = b.op("Transpose", [z], (2, 6, 4, 4), perm=[1, 0, 2, 3])
    check(b.finish([classify(b, back)]), 0)


def test_convolution_over_a_batch_of_channels() -> None:
    b = builder(13)
    x = b.input(2, 4, 4, 4)
    y = b.reshape(conv(b, x, 6), (12, 1, 4, 4), (12, 1, 4, 4))
    z = b.op("Conv", [y, b.weight(1, 1, 3, 3), b.weight(1)], y.shape, pads=[1] * 4)
    check(b.finish([classify(b, b.reshape(z, (2, 6, 4, 4), (2, 6, 4, 4)))]), 0)
