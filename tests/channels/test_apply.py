"""Pruning: slices, resize hooks, and equality with the masked original for every operator that repeats a size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import channels, ir
from onnxprune.errors import ModelError
from passes.structured_pruning.apply import delete, prune

SIZE = (4, 4)


def start(net, width: int = 8, **options: int):
    """A net whose first convolution makes `width` channels."""
    n = net(**options)
    return n, n.op("Relu", n.conv(n.input(2, 3, *SIZE), width, 3, name="a"))


def finish(n, x: str, inputs: int) -> ir.Model:
    return n.model(n.op("GlobalAveragePool", n.conv(x, 5, inputs, name="last"), out="y"))


def node(model: ir.Model, op: str):
    return next(each for each in model.graph.nodes if each.op == op)


def test_slices_weights_and_refreshes_shapes(net, prove):
    n, x = start(net)
    model = finish(n, n.conv(x, 6, 8, name="b"), 6)
    graph = channels.analyze(model)
    keep = {"a:0": np.arange(8) % 2 == 0}
    pruned = prove(model, graph, keep)
    tensors = ir.tensors(pruned)
    assert tensors["a"].shape == (4, 3, 1, 1)
    assert tensors["b"].shape == (6, 4, 1, 1)
    assert list(tensors["t0"].shape) == [2, 4, 4, 4]
    np.testing.assert_array_equal(tensors["a"].values, ir.tensors(model)["a"].values[::2])


def test_the_analysed_model_is_left_alone(net):
    n, x = start(net)
    model = finish(n, x, 8)
    before = ir.text(model)
    graph = channels.analyze(model)
    prune(model.copy(), graph, {"a:0": np.arange(8) < 3})
    assert ir.text(model) == before


def test_keeping_all_changes_nothing(net):
    n, x = start(net)
    model = finish(n, x, 8)
    graph = channels.analyze(model)
    pruned = model.copy()
    prune(pruned, graph, {group.name: np.ones(group.width, bool) for group in graph.groups})
    assert ir.to_proto(pruned).SerializeToString() == ir.to_proto(model).SerializeToString()


@pytest.mark.parametrize(("group", "outputs"), [(8, 8), (8, 24), (2, 12), (4, 4)])
def test_grouped_conv(net, prove, group, outputs):
    n, x = start(net)
    prove(finish(n, n.conv(x, outputs, 8, 3, group=group), outputs))


@pytest.mark.parametrize(("group", "outputs"), [(1, 6), (8, 1), (8, 2), (2, 3), (4, 2)])
def test_conv_transpose(net, prove, group, outputs):
    n, x = start(net)
    w = n.weight(8, outputs, 2, 2)
    y = n.op("ConvTranspose", x, w, n.weight(outputs * group), strides=[2, 2], group=group)
    prove(finish(n, y, outputs * group))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_into_unequal_parts(net, prove, opset):
    n, x = start(net, opset=opset)
    old, new = {"split": [3, 5]}, [n.ints(3, 5)]
    parts = n.ops("Split", 2, x, *([] if opset < 13 else new), axis=1, **(old if opset < 13 else {}))
    prove(finish(n, n.op("Concat", parts[1], n.op("Neg", parts[0]), axis=1), 8))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_into_equal_parts(net, prove, opset):
    n, x = start(net, opset=opset)
    extra = {"num_outputs": 2} if opset >= 18 else {}
    left, right = n.ops("Split", 2, x, axis=1, **extra)
    model = finish(n, n.op("Concat", n.op("Neg", right), left, axis=1), 8)
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [4, 4]
    keep = {graph.groups[0].name: np.array([True, False, False, False])}
    pruned = prove(model, graph, keep)
    assert [each.shape[1] for each in node(pruned, "Split").outputs] == [1, 4]
    prove(model, graph)


@pytest.mark.parametrize(
    ("start_", "end", "step"), [(2, 6, 1), (-3, 99, 1), (0, 8, 2), (7, -99, -1), (6, 0, -2), (0, 5, 1)]
)
def test_slice_of_channels(net, prove, start_, end, step):
    n, x = start(net)
    y = n.op("Slice", x, n.ints(start_), n.ints(end), n.ints(1), n.ints(step))
    width = len(range(8)[slice(start_, None if end == -99 else end, step)])
    prove(finish(n, n.op("Concat", y, x, axis=1), width + 8))


def test_uneven_slice_becomes_a_gather(net, prove):
    n, x = start(net)
    y = n.op("Slice", x, n.ints(0), n.ints(8), n.ints(1), n.ints(2))
    model = finish(n, n.op("Concat", y, x, axis=1), 12)
    graph = channels.analyze(model)
    even, odd = graph.groups
    keep = {odd.name: np.array([True, False, True, True]), even.name: np.array([True, True, True, False])}
    pruned = prove(model, graph, keep)
    assert node(pruned, "Gather").inputs[1].values.tolist() == [0, 2, 3]


def test_slice_with_attributes(net, prove):
    n, x = start(net, opset=9)
    y = n.op("Slice", x, starts=[1, 0], ends=[6, 2], axes=[1, 2])
    prove(n.model(n.op("GlobalAveragePool", n.conv(y, 5, 5))))


@pytest.mark.parametrize("indices", [[5, 0, 0, 3], [-1, 2], [7, 6, 5, 4, 3, 2, 1, 0]])
def test_gather_of_channels(net, prove, indices):
    n, x = start(net)
    y = n.op("Gather", x, n.ints(*indices), axis=1)
    prove(finish(n, n.op("Concat", y, x, axis=1), len(indices) + 8))


def test_gather_of_one_channel_pins_it(net, prove):
    n, x = start(net)
    one = n.op("Unsqueeze", n.op("Gather", x, n.constant(np.array(5)), axis=1), n.ints(1))
    model = finish(n, n.op("Mul", x, one), 8)
    graph = channels.analyze(model)
    (group,) = graph.groups
    assert group.width == 7
    assert group.owner["a", 0][5] == -1
    prove(model, graph)


@pytest.mark.parametrize("opset", [10, 13, 18])
@pytest.mark.parametrize("pads", [(2, 3), (0, 1), (-1, -2), (-2, 4)])
def test_pad_of_channels(net, prove, opset, pads):
    n, x = start(net, opset=opset)
    full = [0, pads[0], 0, 0, 0, pads[1], 0, 0]
    if opset < 11:
        y = n.op("Pad", x, pads=full, mode="constant", value=0.5)
    elif opset < 18:
        y = n.op("Pad", x, n.ints(*full), n.constant(np.float32(0.5)))
    else:
        y = n.op("Pad", x, n.ints(*pads), n.constant(np.float32(0.5)), n.ints(1))
    width = 8 + sum(pads)
    spine = n.op("Add", y, n.conv(x, width, 8))
    prove(finish(n, spine, width))


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("shape", [(2, 2, 4, 4, 4), (0, -1, 4, 4, 4), (-1, 2, 4, 16)])
def test_reshape_and_back(net, prove, opset, shape):
    n, x = start(net, opset=opset)
    y = n.op("Tanh", n.op("Reshape", x, n.ints(*shape)))
    prove(finish(n, n.op("Reshape", y, n.ints(2, 8, 4, 4)), 8))


def test_shared_target_shape_is_copied(net, prove):
    n, x = start(net)
    other = n.op("Relu", n.conv("x", 8, 3, name="b"))
    target = n.ints(2, 8, 16, name="target")
    sums = [n.op("MatMul", n.op("Reshape", each, target), n.weight(16, 4)) for each in (x, other)]
    flat = n.op("Concat", *(n.op("Transpose", each, perm=[0, 2, 1]) for each in sums), axis=2)
    model = n.model(n.linear(flat, 16, 5))
    graph = channels.analyze(model)
    keep = {"a:0": np.arange(8) < 3, "b:0": np.arange(8) < 5}
    pruned = prove(model, graph, keep)
    targets = [each.inputs[1].values.tolist() for each in pruned.graph.nodes if each.op == "Reshape"]
    assert targets == [[2, 3, 16], [2, 5, 16]]


def test_computed_target_shape_is_rewritten_in_its_constant_part(net, prove):
    n = net()
    x = n.linear(n.input("N", "S", 7), 7, 12, name="a")
    batch = n.op("Unsqueeze", n.op("Gather", n.op("Shape", x), n.constant(np.array(0)), axis=0), n.ints(0))
    length = n.op("Unsqueeze", n.op("Gather", n.op("Shape", x), n.constant(np.array(1)), axis=0), n.ints(0))
    target = n.op("Concat", batch, length, n.ints(3), n.ints(4), axis=0)
    split = n.op("Reshape", x, target, out="split")
    back = n.op("Concat", batch, length, n.ints(12), axis=0)
    joined = n.op("Reshape", n.op("Softmax", split, axis=-1), back, out="joined")
    proto = n.proto(n.linear(joined, 12, 5))
    for name, shape in ((split, ["N", "S", 3, 4]), (joined, ["N", "S", 12])):
        proto.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    graph = channels.analyze(model)
    (group,) = graph.groups
    assert group.width in (3, 4)
    prove(model, graph, N=2, S=3)


def test_computed_target_shape_is_overridden(net, prove):
    """The token that is expanded to the batch: the sizes come out of a Where, as one exporter writes them."""
    n = net()
    x = n.linear(n.input("N", 3, 7), 7, 12, name="a")
    batch = n.op("Unsqueeze", n.op("Gather", n.op("Shape", "x"), n.constant(np.array(0)), axis=0), n.ints(0))
    sizes = n.op("Concat", batch, n.ints(1, -1), axis=0)
    target = n.op("Where", n.constant(np.array([False, False, True])), n.ints(1, 1, 12), sizes)
    token = n.op("Expand", n.weight(1, 1, 12, name="token"), target, out="token_n")
    joined = n.op("Concat", token, x, axis=1)
    proto = n.proto(n.linear(joined, 12, 5))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info(token, 1, ["N", 1, 12]))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info(target, 7, [3]))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [12]
    pruned = prove(model, graph, N=2)
    assert [each.op for each in pruned.graph.nodes].count("Where") == 2


def test_pixel_shuffle_by_reshape(net, prove):
    n, x = start(net, 12)
    y = n.op("Reshape", x, n.ints(2, 3, 2, 2, 4, 4))
    y = n.op("Reshape", n.op("Transpose", y, perm=[0, 1, 4, 2, 5, 3]), n.ints(2, 3, 8, 8))
    model = finish(n, y, 3)
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [3]
    prove(model, graph)


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(net, prove, op, mode):
    n, x = start(net)
    y = n.op(op, x, blocksize=2, **({"mode": mode} if op == "DepthToSpace" else {}))
    prove(finish(n, y, 2 if op == "DepthToSpace" else 32))


def test_flatten_into_gemm(net, prove):
    n, x = start(net)
    prove(n.model(n.op("Gemm", n.op("Flatten", x), n.weight(5, 128), n.weight(5), transB=1)))


def test_squeeze_names_its_axes(net, prove):
    n, x = start(net, opset=13)
    y = n.op("Squeeze", n.op("GlobalAveragePool", x))
    model = n.model(n.op("Gemm", y, n.weight(8, 5)))
    model.graph.nodes[3].outputs[0].shape = [2, 8]
    graph = channels.analyze(model)
    pruned = prove(model, graph, {"a:0": np.arange(8) < 1})
    assert node(pruned, "Squeeze").inputs[1].values.tolist() == [2, 3]


def test_tile_and_expand(net, prove):
    n, x = start(net)
    tiled = n.op("Tile", x, n.ints(1, 3, 1, 1))
    scale = n.op("Expand", n.op("ReduceMean", x, axes=[1, 2, 3]), n.ints(1, 24, 1, 1))
    prove(finish(n, n.op("Mul", tiled, scale), 24))


def test_repeated_heads(net, prove):
    """Grouped-query attention repeats each key head by Expand."""
    n = net()
    x = n.input(2, 5, 7)
    query = n.op("Reshape", n.linear(x, 7, 24, name="q"), n.ints(2, 5, 6, 4))
    query = n.op("Transpose", query, perm=[0, 2, 1, 3])
    repeated = []
    for name in "kv":
        each = n.op("Reshape", n.linear(x, 7, 12, name=name), n.ints(2, 5, 3, 4))
        each = n.op("Unsqueeze", n.op("Transpose", each, perm=[0, 2, 1, 3]), n.ints(2))
        each = n.op("Expand", each, n.ints(2, 3, 2, 5, 4))
        repeated.append(n.op("Reshape", each, n.ints(2, 6, 5, 4)))
    scores = n.op("MatMul", query, n.op("Transpose", repeated[0], perm=[0, 1, 3, 2]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), repeated[1])
    joined = n.op("Reshape", n.op("Transpose", mixed, perm=[0, 2, 1, 3]), n.ints(2, 5, 24))
    model = n.model(n.linear(joined, 24, 5, name="o"))
    graph = channels.analyze(model)
    (group,) = graph.groups
    assert (group.kind, group.width) == ("head", 3)
    np.testing.assert_array_equal(group.owner["q", 1], np.repeat(np.arange(3), 8))
    prove(model, graph)


def test_packed_projection(net, prove):
    """One matrix makes queries, keys and values: (3 h d)."""
    n = net()
    x = n.input(2, 5, 7)
    packed = n.op("Reshape", n.linear(x, 7, 36, name="qkv"), n.ints(2, 5, 3, 3, 4))
    packed = n.op("Transpose", packed, perm=[2, 0, 3, 1, 4])
    query, key, value = (n.op("Gather", packed, n.constant(np.array(i)), axis=0) for i in range(3))
    scores = n.op("MatMul", query, n.op("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), value)
    joined = n.op("Reshape", n.op("Transpose", mixed, perm=[0, 2, 1, 3]), n.ints(2, 5, 12))
    model = n.model(n.linear(joined, 12, 5, name="o"))
    graph = channels.analyze(model)
    (group,) = graph.groups
    assert (group.kind, group.width) == ("head", 3)
    np.testing.assert_array_equal(group.owner["qkv", 1], np.tile(np.repeat(np.arange(3), 4), 3))
    prove(model, graph)
    prove(model, channels.analyze(model, granularity="head_dim"))


@pytest.mark.parametrize("scales", [True, False])
def test_resize(net, prove, scales):
    n, x = start(net)
    if scales:
        y = n.op("Resize", x, "", n.constant(np.array([1, 1, 2, 2], np.float32)))
    else:
        y = n.op("Resize", x, "", "", n.ints(2, 8, 8, 8))
    prove(finish(n, y, 8))


def test_constant_of_shape(net, prove):
    n, x = start(net)
    prove(finish(n, n.op("Add", x, n.op("ConstantOfShape", n.ints(1, 8, 1, 1))), 8))


def test_transposed_layout(net, prove):
    n, x = start(net)
    y = n.op("Transpose", x, perm=[0, 2, 3, 1])
    y = n.op("Add", n.op("LayerNormalization", y, n.weight(8), n.weight(8)), n.weight(8))
    prove(n.model(n.linear(y, 8, 5)))


def test_squeeze_and_excitation(net, prove):
    n, x = start(net)
    gate = n.op("Sigmoid", n.conv(n.op("Relu", n.conv(n.op("GlobalAveragePool", x), 3, 8)), 8, 3))
    prove(finish(n, n.op("Mul", x, gate), 8))


def test_batch_norm_and_prelu(net, prove):
    n, x = start(net)
    variance = n.constant(np.linspace(0.5, 2, 8, dtype=np.float32))
    y = n.op("BatchNormalization", x, n.weight(8), n.weight(8), n.weight(8), variance)
    prove(finish(n, n.op("PRelu", y, n.weight(8, 1, 1)), 8))


def test_quantized_weights(net, prove):
    n, x = start(net)
    w = n.constant(n.rng.integers(-9, 9, (6, 8, 3, 3)).astype(np.int8), "wq")
    scale = n.constant(np.linspace(0.1, 0.3, 6, dtype=np.float32), "scale")
    y = n.op("Conv", x, n.op("DequantizeLinear", w, scale, axis=0))
    model = finish(n, y, 6)
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [8, 6]
    pruned = prove(model, graph, {graph.groups[1].name: np.arange(6) < 2})
    assert ir.tensors(pruned)["wq"].shape == (2, 8, 3, 3)
    assert ir.tensors(pruned)["scale"].shape == (2,)


def test_foreign_removal_is_refused(net):
    n, x = start(net)
    model = finish(n, x, 8)
    with pytest.raises(ModelError, match="the model that was analysed"):
        delete(model, {("nobody", 0): np.array([1])})


def test_inconsistent_removal_is_refused(net):
    n, x = start(net)
    model = finish(n, x, 8)
    with pytest.raises(ModelError, match="inconsistent"):
        delete(model, {("a", 0): np.array([1])})
