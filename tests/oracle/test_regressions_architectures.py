"""What whole architectures showed, each in the smallest graph that shows it."""

from __future__ import annotations

import numpy as np
import pytest
from corner_graphs import builder, check, classify, conv
from graph_builder import Builder, Value

from onnxprune import canonicalize


def group_norm(b: Builder, x: Value, groups: int) -> Value:
    """As exporters write it before opset 18: the channels of a group and the map as one axis of an InstanceNorm."""
    n, c, h, w = x.shape
    folded = b.reshape(x, (0, groups, -1), (n, groups, c // groups * h * w))
    ones = [b.constant(v) for v in (np.ones(groups, np.float32), np.zeros(groups, np.float32))]
    normed = b.op("InstanceNormalization", [folded, *ones], folded.shape)
    return b.binary("Mul", b.reshape(normed, x.shape, x.shape), b.weight(c, 1, 1), x.shape)


@pytest.mark.parametrize(("groups", "units"), [(1, 8), (2, 2), (4, 4), (8, 8)])
def test_group_norm_loses_whole_groups_and_its_only_group_loses_channels(groups: int, units: int) -> None:
    """PoolFormer, Conv-TasNet: one group over all channels, whose size is then in the formula."""
    b = builder(17)
    y = group_norm(b, conv(b, b.input(2, 3, 4, 4), 8), groups)
    assert check(b.finish([classify(b, y)])) == [units]


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_group_norm_of_maps_of_any_size_loses_whole_groups(groups: int) -> None:
    """The axis behind the groups has no known size; the way back reads all sizes of the map."""
    b = builder(17)
    y = conv(b, b.input(2, 3, 6, 4), 8)
    ones, zeros = b.constant(np.ones(groups, np.float32)), b.constant(np.zeros(groups, np.float32))
    folded = b.reshape(y, (0, groups, -1), (2, groups, 8 // groups * 24))
    normed = b.op("InstanceNormalization", [folded, ones, zeros], folded.shape)
    y = b.op("Reshape", [normed, b.op("Shape", [y], (4,))], y.shape)
    model = b.finish([classify(b, y)], ["N", "", "H", "W"])
    assert check(canonicalize(model)) == [groups]


def test_a_map_is_resized_to_the_size_of_another() -> None:
    """DeepLab, HRNet: batch and channels come from one Shape, height and width from that of the skip."""
    b = builder(17)
    x = b.input(2, 3, 6, 4)
    small = b.op("Conv", [x, b.weight(8, 3, 1, 1)], (2, 8, 3, 2), strides=[2, 2])
    bounds = [b.ints([v]) for v in (0, 2, 4)]
    own = b.op("Slice", [b.op("Shape", [small], (4,)), bounds[0], bounds[1], bounds[0]], (2,))
    skip = b.op("Slice", [b.op("Shape", [x], (4,)), bounds[1], bounds[2], bounds[0]], (2,))
    sizes = b.op("Concat", [own, skip], (4,), axis=0)
    empty = b.constant(np.zeros(0, np.float32))
    y = b.op("Resize", [small, empty, empty, sizes], (2, 8, 6, 4), mode="linear")
    model = b.finish([classify(b, b.unary("Relu", y))], ["N", "", "H", "W"])
    assert check(canonicalize(model)) == [8]


def test_norms_that_share_a_vector_of_ones_are_pruned_one_by_one() -> None:
    """The exporter stores equal initializers once; the units of both norms would have to leave together."""
    b = builder(17)
    ones, zeros = b.constant(np.ones(6, np.float32)), b.constant(np.zeros(6, np.float32))
    y = b.op("InstanceNormalization", [conv(b, b.input(2, 3, 4, 4), 6), ones, zeros], (2, 6, 4, 4))
    y = b.op("InstanceNormalization", [conv(b, b.unary("Relu", y), 6), ones, zeros], (2, 6, 4, 4))
    model = b.finish([classify(b, b.unary("Relu", y))])
    assert check(model) == [6]
    assert check(canonicalize(model)) == [6, 6]
