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


def test_norms_that_share_a_vector_of_ones_are_pruned_one_by_one() -> None:
    """The exporter stores equal initializers once; the units of both norms would have to leave together."""
    b = builder(17)
    ones, zeros = b.constant(np.ones(6, np.float32)), b.constant(np.zeros(6, np.float32))
    y = b.op("InstanceNormalization", [conv(b, b.input(2, 3, 4, 4), 6), ones, zeros], (2, 6, 4, 4))
    y = b.op("InstanceNormalization", [conv(b, b.unary("Relu", y), 6), ones, zeros], (2, 6, 4, 4))
    model = b.finish([classify(b, b.unary("Relu", y))])
    assert check(model) == [6]
    assert check(canonicalize(model)) == [6, 6]
