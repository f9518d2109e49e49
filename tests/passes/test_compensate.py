from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import channels, ir
from onnxprune.stats import Feeds, Reference, collect, model_drift, products, run
from passes.block_removal import branches, drop
from passes.structured_pruning import Options, compensate, prune
from passes.structured_pruning.least_squares import predict, solve
from passes.structured_pruning.rows import held_out_rows
from passes.structured_pruning.targets import plans

RNG = np.random.default_rng(0)
EXACT = Options(ridges=(1e-9,), rounds=0, held_out=0.0, threads=1)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def parse(body, weights, signature="(float[n, 6] x) => (float[n, 4] y)"):
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nnet {signature} {{\n{body}\n}}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def mlp(**changes):
    weights = {"w1": rand(6, 8), "b1": rand(8), "w2": rand(8, 4), "b2": rand(4)} | changes
    return parse("h = Gemm(x, w1, b1)\nr = Relu(h)\ny = Gemm(r, w2, b2)", weights)


def feeds(model, *shape):
    return Feeds.from_arrays({"x": rand(*shape)}, model)


def keep_of(graph, *removed, width=8):
    mask = np.ones(width, bool)
    mask[list(removed)] = False
    return {graph.groups[0].name: mask}


def test_units_that_are_combinations_of_others_are_recovered_exactly():
    w1, b1 = rand(6, 8), rand(8)
    w1[:, 7], b1[7] = 2 * w1[:, 0], 2 * b1[0]  # relu(2h) = 2 relu(h)
    model = mlp(w1=w1, b1=b1)
    graph, data = channels.analyze(model), feeds(model, 300, 6)
    keep = keep_of(graph, 7)
    small = model.copy()
    prune(small, graph, keep)
    assert model_drift(model, small, data, threads=1)["y"] > 0.1
    report = compensate(model, small, graph.removals(keep), data, options=EXACT)
    assert model_drift(model, small, data, threads=1)["y"] < 1e-4
    assert [fit.node for fit in report.fits] == ["y"] and report.fits[0].after < 1e-8 < report.fits[0].before


def test_the_bias_takes_up_a_constant_unit():
    w1, b1 = rand(6, 8), rand(8)
    w1[:, 2], b1[2] = 0, 3
    model = mlp(w1=w1, b1=b1)
    graph, data = channels.analyze(model), feeds(model, 300, 6)
    keep = keep_of(graph, 2)
    small = model.copy()
    prune(small, graph, keep)
    compensate(model, small, graph.removals(keep), data, options=EXACT)
    assert model_drift(model, small, data, threads=1)["y"] < 1e-4


def test_the_result_is_the_least_squares_solution():
    model = mlp()
    graph, data = channels.analyze(model), feeds(model, 400, 6)
    keep = keep_of(graph, 1, 4, 5)
    small = model.copy()
    prune(small, graph, keep)
    compensate(model, small, graph.removals(keep), data, options=EXACT)
    call = next(run(model, data, ["r", "y"], batch=400, threads=1))
    hidden = np.hstack([call["r"][:, keep[graph.groups[0].name]], np.ones((400, 1))])
    best = hidden @ np.linalg.lstsq(hidden, call["y"], rcond=None)[0]
    ours = next(run(small, data, batch=400, threads=1))["y"]
    np.testing.assert_allclose(ours, best, atol=1e-3)


def test_a_bias_is_made_where_there_is_none():
    w1 = rand(6, 8)
    model = parse("h = Gemm(x, w1, b1)\nr = Relu(h)\ny = Gemm(r, w2)", {"w1": w1, "b1": rand(8), "w2": rand(8, 4)})
    graph, data = channels.analyze(model), feeds(model, 300, 6)
    keep = keep_of(graph, 0, 1)
    small = model.copy()
    prune(small, graph, keep)
    compensate(model, small, graph.removals(keep), data, options=EXACT)
    last = small.graph.nodes[-1]
    assert len(last.inputs) == 3 and last.inputs[2].values.shape == (4,) and last.inputs[2].values.any()
    onnx.checker.check_model(ir.to_proto(small), full_check=True)


def test_a_matmul_puts_its_bias_into_the_constant_that_is_added():
    w1, b1 = rand(6, 8), rand(8)
    w1[:, 3], b1[3] = 0, 2
    body = "h = Gemm(x, w1, b1)\nr = Relu(h)\nm = MatMul(r, w2)\ny = Add(b2, m)"
    model = parse(body, {"w1": w1, "b1": b1, "w2": rand(8, 4), "b2": rand(4)})
    graph, data = channels.analyze(model), feeds(model, 300, 6)
    keep = keep_of(graph, 3)
    small = model.copy()
    prune(small, graph, keep)
    compensate(model, small, graph.removals(keep), data, options=EXACT)
    before, after = (ir.initializers(m)["b2"].values for m in (model, small))
    np.testing.assert_allclose(after, before + 2 * ir.initializers(model)["w2"].values[3], rtol=1e-3, atol=1e-3)
    assert model_drift(model, small, data, threads=1)["y"] < 1e-4


RESIDUAL = """
  s0 = Gemm(x, w0, c0)
  h1 = Gemm(s0, w1, b1)
  r1 = Relu(h1)
  d1 = Gemm(r1, w2, b2)
  s1 = Add(d1, s0)
  h2 = Gemm(s1, w3, b3)
  r2 = Relu(h2)
  d2 = Gemm(r2, w4, b4)
  s2 = Add(s1, d2)
  y = Gemm(s2, w5, b5)
"""


def residual():
    sizes = {"w0": (6, 5), "c0": (5,), "w1": (5, 8), "b1": (8,), "w2": (8, 5), "b2": (5,), "w3": (5, 8), "b3": (8,)}
    sizes |= {"w4": (8, 5), "b4": (5,), "w5": (5, 4), "b5": (4,)}
    return parse(RESIDUAL, {name: rand(*shape) for name, shape in sizes.items()})


def test_a_residual_branch_is_steered_to_the_dense_sum():
    model = residual()
    graph = channels.analyze(model)
    (first,) = [group for group in graph.groups if group.name.startswith("w1")]
    keep = {first.name: np.arange(8) >= 3}
    small = model.copy()
    prune(small, graph, keep)
    found = {plan.product.node: plan for plan in plans(model, small)}
    assert set(found) == {"d1", "h2", "d2", "y"}  # s0 and h1 are what they were
    assert (found["d1"].terminal, found["d1"].others) == ("s1", ["s0"])
    assert (found["d2"].terminal, found["d2"].others) == ("s2", ["s1"])
    assert found["h2"].low == 0.0 and found["h2"].dense == "h2" and found["y"].low is None
    assert [found[key].wave for key in ("d1", "h2", "d2", "y")] == sorted({found[key].wave for key in found})


def test_drift_of_the_other_operand_is_corrected():
    model = residual()
    graph, data = channels.analyze(model), feeds(model, 500, 6)
    (first,) = [group for group in graph.groups if group.name.startswith("w1")]
    keep = {first.name: np.arange(8) >= 4}
    small = model.copy()
    prune(small, graph, keep)
    statistics = collect(model, data, threads=1)
    compensate(model, small, graph.removals(keep), data, statistics=statistics, options=Options(threads=1))
    call = next(run(small, data, ["s1", "r2", "s2"], batch=500, threads=1))
    dense = next(run(model, data, ["s2"], batch=500, threads=1))["s2"]
    hidden = np.hstack([call["r2"], np.ones((500, 1))])
    wanted = dense - call["s1"]
    best = hidden @ np.linalg.lstsq(hidden, wanted, rcond=None)[0]
    reached = np.square(dense - call["s2"]).sum()
    assert reached < 1.2 * np.square(wanted - best).sum()


def test_before_a_dropped_branch_the_target_is_the_dense_sum_after_it():
    model = residual()
    data = feeds(model, 400, 6)
    second = branches(model)[1]
    small = model.copy()
    aliases = drop(small, [second])
    assert aliases == {"s1": "s2"}
    found = {plan.product.node: plan for plan in plans(model, small, aliases)}
    assert found["d1"].dense == "s2" and found["d1"].terminal == "s1"
    before = model_drift(model, small, data, threads=1)["y"]
    compensate(model, small, {}, data, aliases=aliases, options=Options(threads=1))
    assert model_drift(model, small, data, threads=1)["y"] < 0.7 * before


@pytest.mark.parametrize(
    ("around", "window", "fitted"),
    [
        ((), 1, ["s0", "h2", "d2", "y"]),  # the window is for a look at one place alone
        (("s1",), 1, ["s0"]),
        (("s1",), 3, ["s0", "h2", "d2"]),
        (("s1",), 9, ["s0", "h2", "d2", "y"]),
        (("s2",), 1, ["d2"]),
        (("s2", "h2"), 2, ["h2", "d2"]),
        (("no target",), 2, ["s0", "h2"]),
    ],
)
def test_a_look_fits_only_the_contractions_around_a_change(around, window, fitted):
    model = residual()
    data = feeds(model, 200, 6)
    small = model.copy()
    aliases = drop(small, branches(model)[:1])
    before = {name: tensor.values for name, tensor in ir.initializers(small).items()}
    options = Options(threads=1, around=frozenset(around), window=window)
    report = compensate(model, small, {}, data, aliases=aliases, options=options)
    assert [fit.node for fit in report.fits] == fitted
    weight = {"s0": "w0", "h2": "w3", "d2": "w4", "y": "w5"}
    after = {name: tensor.values for name, tensor in ir.initializers(small).items()}
    changed = {name for name in weight.values() if not np.array_equal(after[name], before[name])}
    assert changed == {weight[node] for node in fitted}


def test_two_contractions_of_one_sum_do_not_wait_for_each_other():
    body = "a = Gemm(x, w1, b1)\nr = Relu(a)\np = Gemm(r, w2, b2)\nq = Gemm(r, w3, b3)\ny = Add(p, q)"
    weights = {"w1": rand(6, 8), "b1": rand(8), "w2": rand(8, 4), "b2": rand(4), "w3": rand(8, 4), "b3": rand(4)}
    model = parse(body, weights)
    graph, data = channels.analyze(model), feeds(model, 300, 6)
    keep = keep_of(graph, 0, 1, 2)
    small = model.copy()
    prune(small, graph, keep)
    found = plans(model, small)
    assert [(plan.product.node, plan.terminal) for plan in found] == [("p", "p"), ("q", "y")]
    before = model_drift(model, small, data, threads=1)["y"]
    compensate(model, small, graph.removals(keep), data, options=EXACT)
    assert model_drift(model, small, data, threads=1)["y"] < before


CONVS = """
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  n = BatchNormalization(a, scale, shift, mean, variance)
  r = Relu(n)
  d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, w2, b2)
  c = Clip(d, zero, six)
  e = Conv <group = 2> (c, w3)
  g = GlobalAveragePool(e)
  y = Flatten(g)
"""


def convs():
    weights = {"w1": rand(8, 3, 3, 3), "scale": np.abs(rand(8)) + 0.5, "shift": rand(8), "mean": rand(8)}
    weights |= {"variance": np.abs(rand(8)) + 1, "w2": rand(8, 1, 3, 3), "b2": rand(8), "w3": rand(4, 4, 1, 1)}
    weights |= {"zero": np.float32(0), "six": np.float32(6)}
    return parse(CONVS, weights, "(float[n, 3, 7, 7] x) => (float[n, 4] y)")


def test_depthwise_grouped_and_normalised_convolutions_are_compensated():
    model = convs()
    graph, data = channels.analyze(model), feeds(model, 40, 3, 7, 7)
    group = graph.groups[0]
    keep = {group.name: np.arange(group.width) != 0}
    small = model.copy()
    prune(small, graph, keep)
    before = model_drift(model, small, data, threads=1)["y"]
    report = compensate(model, small, graph.removals(keep), data, options=Options(threads=1))
    after = model_drift(model, small, data, threads=1)["y"]
    assert after < 0.8 * before and "e" in {fit.node for fit in report.fits}
    onnx.checker.check_model(ir.to_proto(small), full_check=True)


def test_compensation_is_repeatable_and_leaves_the_dense_model_alone():
    model = convs()
    graph, data = channels.analyze(model), feeds(model, 20, 3, 7, 7)
    keep = {graph.groups[0].name: np.arange(graph.groups[0].width) != 1}
    dense = ir.to_proto(model).SerializeToString()
    made = []
    for _ in range(2):
        small = model.copy()
        prune(small, graph, keep)
        compensate(model, small, graph.removals(keep), data, options=Options(threads=1))
        made.append(ir.to_proto(small).SerializeToString())
    assert made[0] == made[1] and ir.to_proto(model).SerializeToString() == dense


def test_a_weight_that_two_nodes_share_is_left_alone():
    body = "h = Gemm(x, w1, b1)\nr = Relu(h)\np = MatMul(r, w2)\nq = MatMul(h, w2)\ny = Add(p, q)"
    model = parse(body, {"w1": rand(6, 8), "b1": rand(8), "w2": rand(8, 4)})
    graph, data = channels.analyze(model), feeds(model, 50, 6)
    keep = keep_of(graph, 0)
    small = model.copy()
    prune(small, graph, keep)
    sliced = ir.initializers(small)["w2"].values
    report = compensate(model, small, graph.removals(keep), data, options=EXACT)
    assert report.fits == () and ir.initializers(small)["w2"].values is sliced


def test_a_weight_that_is_an_embedding_too_is_left_alone():
    """The output's weight is the table of the embeddings: a fit to the logits would change those."""
    weights = {"t": rand(9, 8), "w": rand(8, 8)}
    body = "e = Gather(t, ids)\nh = MatMul(e, w)\ny = Gemm <transB = 1> (h, t)"
    model = parse(body, weights, "(int64[n] ids) => (float[n, 9] y)")
    graph = channels.analyze(model)
    keep = {graph.groups[0].name: np.arange(8) > 2}
    small = model.copy()
    prune(small, graph, keep)
    sliced = ir.initializers(small)["t"].values.copy()
    data = Feeds.from_arrays({"ids": RNG.integers(0, 9, 200)}, model)
    report = compensate(model, small, graph.removals(keep), data, options=EXACT)
    assert [fit.node for fit in report.fits] == ["h"]
    np.testing.assert_array_equal(ir.initializers(small)["t"].values, sliced)


def test_a_target_that_lost_rows_is_left_alone():
    """Mixing over tokens: the tokens that leave are rows of the product over features that comes next."""
    weights = {"w": rand(6, 7), "mix": rand(4, 8), "v": rand(7, 5), "back": rand(8, 3)}
    turn = "Transpose <perm = [0, 2, 1]>"
    body = f"a = MatMul(x, w)\nt = {turn} (a)\nm = MatMul(t, mix)\nr = Relu(m)\nu = {turn} (r)\n"
    body += f"h = MatMul(u, v)\ns = {turn} (h)\ny = MatMul(s, back)"
    model = parse(body, weights, "(float[n, 4, 6] x) => (float[n, 5, 3] y)")
    graph = channels.analyze(model)
    keep = {group.name: np.arange(group.width) < 5 for group in graph.groups}
    assert sorted(group.width for group in graph.groups) == [7, 8]
    small = model.copy()
    prune(small, graph, keep)
    report = compensate(model, small, graph.removals(keep), feeds(model, 50, 4, 6), options=EXACT)
    assert "rows of its target" in report.skipped["h"]
    assert "y" in [fit.node for fit in report.fits]


def test_rows_beyond_the_memory_limit_go_to_disk_and_come_back_equal():
    model = mlp()
    data = feeds(model, 100, 6)
    roomy, tight = Reference(model, data, threads=1), Reference(model, data, threads=1)
    tight._memory = 0  # fewer samples would be taken if it were given
    for reference in (roomy, tight):
        reference.fetch({"y": 1, "h": 1})
    for call in range(4):
        for name in ("y", "h"):
            np.testing.assert_array_equal(roomy.at(name, call), tight.at(name, call))
    folder = tight._directory
    assert folder is not None and folder.is_dir()
    del tight, reference
    assert not folder.exists()


def test_samples_are_cut_down_to_the_memory_limit():
    model = mlp()
    data = feeds(model, 100, 6)
    small = Reference(model, data, threads=1, memory=20 * 4 * 8)  # r, eight floats, is the widest tensor kept
    assert len(small.feeds) == 20
    assert len(Reference(model, data, threads=1).feeds) == 100


def test_one_sided_targets_are_free_below_zero():
    x = RNG.standard_normal((1, 500, 3)).astype(np.float32)
    truth = RNG.standard_normal((1, 2, 3))
    goal = np.maximum(predict(x, truth, np.zeros((1, 2))), 0)

    def project(y):
        return np.where(goal > 0, goal, np.minimum(y, 0))

    plain = solve(x, goal, np.zeros_like(truth), ridges=(1e-9,))
    free = solve(x, goal, np.zeros_like(truth), ridges=(1e-9,), project=project, rounds=60)
    errors = [np.square(np.maximum(predict(x, s.weights, s.bias), 0) - goal).mean() for s in (plain, free)]
    assert errors[1] < 0.01 * errors[0]
    np.testing.assert_allclose(free.weights, truth, atol=0.05)


def test_held_out_rows_choose_a_strong_ridge_for_noise_and_a_weak_one_for_signal():
    x = RNG.standard_normal((1, 60, 30)).astype(np.float32)
    held = np.arange(60) % 4 == 0
    truth = RNG.standard_normal((1, 2, 30))
    signal = predict(x, truth, np.zeros((1, 2)))
    noise = RNG.standard_normal(signal.shape).astype(np.float32)
    ridges = (1e-4, 1e-2, 10.0)
    centre = np.zeros_like(truth)
    assert solve(x, signal, centre, ridges=ridges, held_out=held).ridge == 1e-4
    assert solve(x, noise, centre, ridges=ridges, held_out=held).ridge == 10.0


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighed", [True, False])
def test_with_the_ridge_chosen_everything_is_fitted(intercept: bool, weighed: bool) -> None:
    """The held-out rows too, as if nothing had been held out."""
    rng = np.random.default_rng(7)
    x, t, centre = rng.normal(2, 1, (2, 300, 5)), rng.normal(1, 1, (2, 300, 3)), np.zeros((2, 3, 5))
    weights = rng.uniform(0.2, 3, 300) if weighed else None
    found = solve(x, t, centre, intercept=intercept, held_out=np.arange(300) % 5 == 0, weights=weights)
    whole = solve(x, t, centre, intercept=intercept, ridges=(found.ridge,), weights=weights)
    np.testing.assert_allclose(found.weights, whole.weights, rtol=1e-9)
    np.testing.assert_allclose(found.bias, whole.bias, rtol=1e-9)


def test_held_out_rows_are_whole_calls_or_the_ends_of_few():
    many = held_out_rows([3] * 14, 0.15)
    assert many is not None and many.reshape(14, 3).all(1).tolist() == [call % 7 == 1 for call in range(14)]
    few = held_out_rows([20, 10], 0.15)
    assert few is not None and np.flatnonzero(few).tolist() == [17, 18, 19, 28, 29]
    assert held_out_rows([20], 0.0) is None


def test_infinite_activations_leave_the_weights_alone():
    model = mlp(b1=np.array([np.inf] + [0] * 7, np.float32))
    graph, data = channels.analyze(model), feeds(model, 60, 6)
    keep = keep_of(graph, 3)
    small = model.copy()
    prune(small, graph, keep)
    report = compensate(model, small, graph.removals(keep), data, options=Options(threads=1))
    assert report.fits == () and "infinite" in report.skipped["y"]


@pytest.mark.parametrize("intercept", [True, False])
def test_a_strong_ridge_gives_the_centre(intercept):
    x, t = RNG.standard_normal((2, 50, 3)), RNG.standard_normal((2, 50, 4))
    centre = RNG.standard_normal((2, 4, 3))
    found = solve(x, t, centre, intercept=intercept, ridges=(1e9,))
    np.testing.assert_allclose(found.weights, centre, atol=1e-6)
    assert intercept == bool(found.bias.any())


def test_products_of_the_pruned_model_are_read_from_it():
    assert products(convs())["e"].groups == 2


def test_without_drift_correction_a_contraction_aims_at_its_own_dense_output():
    model = parse(
        "a = MatMul(x, w1)\nr = Relu(a)\nb = MatMul(r, w2)\ns = Add(b, x)\nc = MatMul(s, w3)\ny = Add(c, s)",
        {"w1": rand(6, 8), "w2": rand(8, 6), "w3": rand(6, 6)},
        "(float[n, 6] x) => (float[n, 6] y)",
    )
    graph, thin = channels.analyze(model), model.copy()
    prune(thin, graph, keep_of(graph, 0, 1))
    for over_sums, ends in ((True, {"s", "y"}), (False, {"b", "c"})):
        found = {plan.terminal: plan.dense for plan in plans(model, thin, over_sums=over_sums)}
        assert found.keys() == ends and all(end == dense for end, dense in found.items())
