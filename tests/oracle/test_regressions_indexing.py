"""Operators that index, count, sample and norm in groups, in forms that random graphs do not reach."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from corner_graphs import builder, check, classify, conv, groups_of
from graph_builder import Value
from onnx import helper
from random_graphs import random_feeds

from onnxprune import channels, ir
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify


def prove_without_checker(model: onnx.ModelProto, keep: int) -> list[ir.Node]:
    """For operators that the checker calls deprecated; the groups keep their first units. Returns the pruned nodes."""
    original = ir.from_proto(model)
    ir.infer_shapes(original)
    graph = channels.analyze(original)
    assert graph.groups, [str(f) for f in graph.frozen]
    masks = {group.name: np.arange(group.width) < keep for group in graph.groups}
    small = original.copy()
    prune(small, graph, masks)
    verdict = verify(original, small, graph.removals(masks), random_feeds(model, np.random.default_rng(0)))
    assert verdict.ok, verdict
    return list(small.graph.nodes)


@pytest.mark.parametrize(("groups", "left"), [(4, 2), (1, 1), (8, 2)])
def test_group_normalization_with_parameters_of_groups(groups: int, left: int) -> None:
    """Opset 18: two of the groups are kept; the only group keeps two of its channels."""
    b = builder(18)
    x = b.input(2, 3, 4, 4)
    y = conv(b, x, 8)
    inputs = [y, b.weight(groups), b.weight(groups)]
    model = b.finish([classify(b, b.op("GroupNormalization", inputs, y.shape, num_groups=groups))])
    nodes = prove_without_checker(model, 2)
    assert next(node for node in nodes if node.op == "GroupNormalization").attrs["num_groups"] == left


@pytest.mark.parametrize("axes", [[0, 2, 3], [1], [1, 2, 3]])
def test_mean_variance_normalization(axes: list[int]) -> None:
    b = builder(13)
    y = conv(b, b.input(2, 3, 4, 4), 8)
    model = b.finish([classify(b, b.op("MeanVarianceNormalization", [y], y.shape, axes=axes))])
    prove_without_checker(model, 5)


def test_max_roi_pool() -> None:
    b = builder(17)
    y = conv(b, b.input(2, 3, 4, 4), 8)
    regions = b.constant(np.array([[0, 0, 0, 2, 2], [1, 1, 0, 3, 3], [0, 1, 1, 2, 3]], np.float32))
    pooled = b.op("MaxRoiPool", [y, regions], (3, 8, 2, 2), pooled_shape=[2, 2])
    prove_without_checker(b.finish([classify(b, pooled)]), 5)


@pytest.mark.parametrize("opset", [17, 20])
def test_transform_of_a_signal(opset: int) -> None:
    """(N, C, T, 1): channels beside the transformed axis."""
    b = builder(opset)
    y = b.reshape(conv(b, b.input(2, 3, 4, 4), 6), (2, 6, 16, 1), (2, 6, 16, 1))
    if opset < 20:
        z = b.op("DFT", [y], (2, 6, 16, 2), axis=2)
    else:
        z = b.op("DFT", [y, "", b.constant(np.asarray(2, np.int64))], (2, 6, 16, 2))
    model = b.finish([classify(b, z)])
    prove_without_checker(model, 4)


def test_determinants_of_each_channel() -> None:
    b = builder(17)
    y = conv(b, b.input(2, 3, 3, 3), 6)
    z = b.op("Det", [y], (2, 6))
    prove_without_checker(b.finish([b.op("MatMul", [z, b.weight(6, 3)], (2, 3))]), 4)


def test_running_product() -> None:
    b = builder(26)
    y = conv(b, b.input(2, 3, 4, 4), 6)
    z = b.op("CumProd", [y, b.constant(np.asarray(-1, np.int32))], y.shape)
    _, graph = groups_of(b.finish([classify(b, z)]))
    assert [group.width for group in graph.groups] == [6]


def test_center_crop_of_all_axes_rewrites_the_channel_entry() -> None:
    b = builder(18)
    y = conv(b, b.input(2, 3, 6, 6), 6)
    z = b.op("CenterCropPad", [y, b.ints([2, 6, 4, 4])], (2, 6, 4, 4))
    assert check(b.finish([classify(b, z)])) == [6]


def test_scatter_of_opset_9() -> None:
    b = builder(9)
    y = conv(b, b.input(2, 3, 4, 4), 6)
    indices = b.ints(np.zeros((2, 6, 1, 4), np.int64))
    z = b.op("Scatter", [y, indices, b.weight(2, 6, 1, 4)], y.shape, axis=2)
    prove_without_checker(b.finish([classify(b, z)]), 4)


@pytest.mark.parametrize("op", ["NonZero", "Unique", "Compress", "RandomNormalLike", "EyeLike"])
def test_what_depends_on_every_element_is_pinned(op: str) -> None:
    b = builder(13)
    y = conv(b, b.input(2, 3, 4, 4), 6)
    if op == "EyeLike":
        flat = b.reshape(y, (12, 16), (12, 16))
        out = b.op(op, [flat], flat.shape)
    elif op == "RandomNormalLike":
        out = b.op(op, [y], y.shape)
    else:
        extra = [b.constant(np.ones(8, bool))] if op == "Compress" else []
        out = b.op(op, [y, *extra], (4, 9) if op == "NonZero" else (8,))
    model = b.finish([out, classify(b, y)])
    if op == "NonZero":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    original = ir.from_proto(model)
    ir.infer_shapes(original)
    graph = channels.analyze(original)
    assert not graph.groups
    assert any(frozen.axis[1] == 0 for frozen in graph.frozen)


def test_one_hot_of_positions() -> None:
    """The classes of an argmax over channels: both channels and classes stay."""
    b = builder(13)
    y = conv(b, b.input(2, 3, 4, 4), 6)
    best = b.op("ArgMax", [y], (2, 4, 4), axis=1, keepdims=0)
    pair = b.constant(np.array([0, 1], np.float32))
    hot = b.op("OneHot", [best, b.constant(np.asarray(6, np.int64)), pair], (2, 6, 4, 4), axis=1)
    _, graph = groups_of(b.finish([classify(b, b.binary("Mul", hot, y, y.shape))]))
    assert not graph.groups
    assert any("ArgMax" in frozen.reason or "OneHot" in frozen.reason for frozen in graph.frozen)


def test_constant_nodes_hold_weights() -> None:
    """A scale and a weight that are Constant nodes, sliced like initializers."""
    b = builder(13)
    y = conv(b, b.input(2, 3, 4, 4), 6)
    rng = np.random.default_rng(1)
    values = {"scale": (1, 6, 1, 1), "weight": (3, 6, 1, 1)}
    for name, shape in values.items():
        tensor = onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32))
        b.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
    z = b.op("Mul", [y, Value("scale", values["scale"])], y.shape)
    model = b.finish([b.op("Conv", [z, Value("weight", values["weight"])], (2, 3, 4, 4))])
    assert check(model) == [6]
