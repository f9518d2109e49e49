from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from onnxprune import channels, ir
from onnxprune.errors import UsageError
from onnxprune.stats import Feeds, collect, model_drift
from passes.structured_pruning import CRITERIA, build_levels, compensate, keep_mask, widths_for_macs
from passes.structured_pruning.allocate import MacsModel
from passes.structured_pruning.apply import prune
from passes.structured_pruning.obs import Curve

RNG = np.random.default_rng(0)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def parse(body, weights, signature):
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nnet {signature} {{\n{body}\n}}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def conv_net(w1=None, scale=None):
    weights = {"w1": rand(6, 3, 3, 3) if w1 is None else w1, "w2": rand(10, 6, 3, 3), "w3": rand(4, 10)}
    weights |= {"scale": np.ones(6, np.float32) if scale is None else scale, "zero": np.zeros(6, np.float32)}
    weights |= {"one": np.ones(6, np.float32)}
    body = """
      a = Conv <pads = [1, 1, 1, 1]> (x, w1)
      n = BatchNormalization(a, scale, zero, zero, one)
      r = Relu(n)
      c = Conv <pads = [1, 1, 1, 1]> (r, w2)
      s = Relu(c)
      g = GlobalAveragePool(s)
      f = Flatten(g)
      y = Gemm <transB = 1> (f, w3)
    """
    return parse(body, weights, "(float[n, 3, 8, 8] x) => (float[n, 4] y)")


def feeds(model, n=30):
    return Feeds.from_arrays({"x": rand(n, 3, 8, 8)}, model)


def first_group(model):
    graph = channels.analyze(model)
    return graph, next(group for group in graph.groups if group.name.startswith("w1"))


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_orders_all_units_with_ascending_errors(name):
    model = conv_net()
    graph = channels.analyze(model)
    curves = build_levels(model, graph, feeds(model), name, seed=3, threads=1)
    again = build_levels(model, graph, feeds(model), name, seed=3, threads=1)
    assert set(curves) == {group.name for group in graph.groups}
    for group in graph.groups:
        curve = curves[group.name]
        assert sorted(curve.order) == list(range(group.width)) and len(curve.error) == group.width + 1
        assert curve.error[0] == 0 and (np.diff(curve.error) >= 0).all() and curve.error[-1] > 0
        if not CRITERIA[name].needs_data:
            np.testing.assert_array_equal(curve.order, again[group.name].order)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
def test_a_unit_that_never_fires_leaves_first(name):
    w1, scale = rand(6, 3, 3, 3), np.ones(6, np.float32)
    w1[4], scale[4] = 0, 0
    if name == "geometric-median":  # the filter amid all others, not the smallest, is redundant
        w1[4] = w1[[0, 1, 2, 3, 5]].mean(0)
    model = conv_net(w1, scale)
    graph, group = first_group(model)
    assert build_levels(model, graph, feeds(model), name, threads=1)[group.name].order[0] == 4


def test_magnitudes_are_what_they_say():
    w1 = np.zeros((6, 3, 3, 3), np.float32)
    w1[:, 0, 0, 0] = [3, 1, 2, 2, 2, 2]
    w1[1, 1, 1, 1] = 3.5  # l1 4.5, l2 3.64
    w1[0, 1, 1, 1] = 2  # l1 5, l2 3.61
    graph, group = first_group(conv_net(w1))
    model = conv_net(w1)
    l1 = build_levels(model, graph, None, "magnitude-l1")[group.name]
    l2 = build_levels(model, graph, None, "magnitude-l2")[group.name]
    assert list(l1.order[-2:]) == [1, 0] and list(l2.order[-2:]) == [0, 1]
    assert l1.error[1] == pytest.approx(2 / 17.5)


def test_bn_scale_falls_back_to_magnitude_where_there_is_none():
    model = parse(
        "h = Gemm(x, w1, b)\nr = Relu(h)\ny = MatMul(r, w2)",
        {"w1": rand(3, 5), "b": rand(5), "w2": rand(5, 2)},
        "(float[n, 3] x) => (float[n, 2] y)",
    )
    graph = channels.analyze(model)
    (group,) = graph.groups
    by_scale, by_size = (build_levels(model, graph, None, name) for name in ("bn-scale", "magnitude-l2"))
    np.testing.assert_array_equal(by_scale[group.name].order, by_size[group.name].order)


def test_random_depends_on_the_seed():
    model = conv_net()
    graph = channels.analyze(model)
    orders = [build_levels(model, graph, None, "random", seed)[graph.groups[1].name].order for seed in range(5)]
    assert any(not np.array_equal(orders[0], order) for order in orders[1:])


def test_unknown_criterion_names_the_known_ones():
    model = conv_net()
    with pytest.raises(UsageError, match="magnitude-l1"):
        build_levels(model, channels.analyze(model), None, "taylor")


def test_statistics_can_be_shared_and_importance_scales_the_error():
    model = conv_net()
    graph, group = first_group(model)
    statistics = collect(model, feeds(model), threads=1)
    plain = build_levels(model, graph, None, statistics=statistics)[group.name]
    heavy = build_levels(model, graph, None, statistics=statistics, importance={"c": 4.0})[group.name]
    np.testing.assert_array_equal(plain.order, heavy.order)
    np.testing.assert_allclose(heavy.error, 4 * plain.error, rtol=1e-9)
    assert plain.error[-1] == pytest.approx(1.0, rel=0.01)


def test_a_group_whose_consumers_cannot_be_measured_is_ranked_by_magnitude():
    model = conv_net()
    graph, group = first_group(model)
    curve = build_levels(model, graph, None, "obs")[group.name]
    expected = build_levels(model, graph, None, "magnitude-l2")[group.name]
    np.testing.assert_array_equal(curve.order, expected.order)


def test_keep_masks_are_nested():
    curve = Curve(np.array([2, 0, 3, 1]), np.zeros(5))
    masks = [keep_mask(curve, width) for width in range(5)]
    assert [mask.sum() for mask in masks] == [0, 1, 2, 3, 4]
    assert all((small <= big).all() for small, big in itertools.pairwise(masks))
    assert masks[1].tolist() == [False, True, False, False]


SHAPE = {"x": (1, 3, 8, 8)}


@pytest.mark.parametrize("budget", [0.9, 0.6, 0.35])
def test_widths_meet_the_budget_as_counted_on_the_pruned_model(budget):
    model = conv_net()
    graph = channels.analyze(model)
    curves = build_levels(model, graph, feeds(model), threads=1)
    shapes = ir.shapes_for(model, SHAPE)
    widths = widths_for_macs(model, graph, curves, budget, shapes)
    keep = {name: keep_mask(curves[name], width) for name, width in widths.items()}
    small = model.copy()
    prune(small, graph, keep)
    ratio = ir.macs(small, ir.shapes_for(small, SHAPE)) / ir.macs(model, shapes)
    assert budget - 0.15 < ratio <= budget + 1e-9
    removed = {name: len(curves[name].order) - width for name, width in widths.items()}
    costs = MacsModel(model, graph, curves, shapes)
    assert costs.macs(removed) / costs.total == pytest.approx(ratio)
    for name, count in removed.items():
        before, after = costs.along(removed, name, np.array([0, count]))
        assert costs.macs({**removed, name: 0}) - costs.macs(removed) == pytest.approx(before - after)


def recurrent_net():
    """Two recurrent layers, the first of which only the second reads, and a product behind them."""
    shapes = {"w1": (1, 32, 6), "r1": (1, 32, 8), "b1": (1, 64), "w2": (1, 24, 8), "r2": (1, 24, 8), "v": (8, 3)}
    weights = [numpy_helper.from_array(rand(*shape), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("LSTM", ["x", "w1", "r1", "b1"], ["a"], hidden_size=8),
        helper.make_node("Squeeze", ["a", "one"], ["s"]),
        helper.make_node("GRU", ["s", "w2", "r2"], ["b"], hidden_size=8),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(np.array([1]), "one"))
    infos = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [5, "n", 6]), ("y", [5, 1, "n", 3]))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    ir.infer_shapes(model)
    return model


def test_recurrent_macs_are_those_of_the_pruned_model():
    """Hidden units leave rows of W and R and columns of R: the first part falls in proportion, the second squared."""
    model = recurrent_net()
    graph = channels.analyze(model)
    shape = {"x": (5, 2, 6)}
    curves = {group.name: Curve(np.arange(8), np.arange(9.0)) for group in graph.groups}
    costs = MacsModel(model, graph, curves, ir.shapes_for(model, shape))
    assert costs.total == 10 * (32 * 6 + 32 * 8 + 24 * 8 + 24 * 8 + 24)
    for group in graph.groups:
        small = model.copy()
        prune(small, graph, {group.name: np.arange(8) >= 3})
        assert costs.macs({group.name: 3}) == ir.macs(small, ir.shapes_for(small, shape))


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_rank_hidden_units(name):
    """Where nothing but a recurrent layer reads the units its input product has the statistics of them."""
    model = recurrent_net()
    graph = channels.analyze(model)
    assert [group.kind for group in graph.groups] == ["hidden", "hidden"]
    data = Feeds.from_arrays({"x": rand(5, 4, 6)}, model)
    curves = build_levels(model, graph, data, name, threads=1)
    for group in graph.groups:
        assert sorted(curves[group.name].order) == list(range(8))
        assert curves[group.name].at(8) == 0 < curves[group.name].at(1)
    statistics = collect(model, data, threads=1)
    widths = widths_for_macs(model, graph, curves, 0.5, ir.shapes_for(model, {"x": (5, 4, 6)}))
    keep = {name: keep_mask(curves[name], width) for name, width in widths.items()}
    small = model.copy()
    prune(small, graph, keep)
    compensate(model, small, graph.removals(keep), data, statistics=statistics)
    assert np.isfinite(model_drift(model, small, data, threads=1)["y"])


def test_what_costs_nothing_goes_first():
    model = conv_net()
    graph = channels.analyze(model)
    curves = {
        group.name: Curve(
            np.arange(group.width), np.arange(group.width + 1) * (1e-6 if group.name[:2] == "w2" else 1.0)
        )
        for group in graph.groups
    }
    widths = widths_for_macs(model, graph, curves, 0.5, ir.shapes_for(model, SHAPE))
    assert {name[:2]: width for name, width in widths.items()}["w1"] == 6
    weighed = widths_for_macs(
        model, graph, curves, 0.5, ir.shapes_for(model, SHAPE), importance={n: 1e9 for n in curves if n[:2] == "w2"}
    )
    assert {name[:2]: width for name, width in weighed.items()}["w2"] == 10


def test_budgets_that_make_no_sense_or_cannot_be_reached_are_usage_errors():
    model = conv_net()
    graph = channels.analyze(model)
    curves = {group.name: Curve(np.arange(group.width), np.arange(group.width + 1.0)) for group in graph.groups}
    shapes = ir.shapes_for(model, SHAPE)
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(UsageError, match="budget"):
            widths_for_macs(model, graph, curves, wrong, shapes)
    with pytest.raises(UsageError, match="the least it can reach"):
        widths_for_macs(model, graph, curves, 0.001, shapes)
    assert widths_for_macs(model, graph, curves, 1.0, shapes) == {group.name: group.width for group in graph.groups}


def test_scales_speak_for_codes():
    """The units of a weight of four bits are ranked by its scales: codes are large where zero points are."""
    codes = np.full((32, 2, 8), 0x88, np.uint8)
    codes[16:] = 0xFF
    scales = np.repeat(np.float32([1.0, 0.01]), 16)[:, None].repeat(2, axis=1)
    weights = {"b": codes, "s": scales, "c": codes[:4, :2], "t": scales[:4]}
    body = """
      h = com.microsoft.MatMulNBits <K = 32, N = 32, bits = 4, block_size = 16> (x, b, s)
      y = com.microsoft.MatMulNBits <K = 32, N = 4, bits = 4, block_size = 16> (h, c, t)
    """
    header = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{header}\nnet (float[n, 32] x) => (float[n, 4] y) {{{body}}}")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    graph = channels.analyze(model)
    for name in ("obs", "magnitude-l1", "magnitude-l2", "wanda"):
        levels = build_levels(model, graph, None, name)
        assert levels["b:0"].order[0] == 1, name
