"""Refinement of whole networks: what it moves, what it leaves, and that it never makes things worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import channels, ir
from onnxprune.stats import Feeds, model_drift
from passes.refinement import RefineOptions, refine
from passes.refinement.differentiate import differentiate
from passes.refinement.targets import outputs_follow, targets
from passes.structured_pruning import Options, compensate, prune

OPTIONS = RefineOptions(steps=60, batch=20, rate=0.01, threads=1)
RESIDUAL = """
a = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)
r = Relu(a)
h = Conv<pads=[1, 1, 1, 1]>(r, w2, b2)
q = Relu(h)
k = Conv<pads=[1, 1, 1, 1]>(q, w3, b3)
s = Add(k, r)
t = Relu(s)
g = GlobalAveragePool(t)
f = Flatten(g)
y = Gemm(f, w4, b4)
"""


def rand(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def parse(body: str, weights: Mapping[str, np.ndarray], signature: str) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nnet {signature} {{\n{body}\n}}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def residual() -> ir.Model:
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 8, 3, 3), "b3": (8,)}
    weights = {name: rand(*shape) * 0.3 for name, shape in (shapes | {"w4": (8, 5), "b4": (5,)}).items()}
    return parse(RESIDUAL, weights, "(float[n, 3, 8, 8] x) => (float[n, 5] y)")


def halved(model: ir.Model, data: Feeds) -> tuple[ir.Model, dict[tuple[str, int], np.ndarray]]:
    """The inner channels of the block cut in half, fitted layer by layer."""
    graph, small = channels.analyze(model), model.copy()
    keep = {group.name: np.arange(8) < 4 for group in graph.groups if group.name.startswith("w2")}
    assert len(keep) == 1
    prune(small, graph, keep)
    removed = graph.removals(keep)
    compensate(model, small, removed, data, options=Options(threads=1))
    return small, dict(removed)


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.values) for name, tensor in ir.initializers(model).items()}


def test_outputs_come_nearer_than_layer_wise_fits_bring_them_and_the_same_again() -> None:
    model = residual()
    data = Feeds.from_arrays({"x": rand(300, 3, 8, 8)}, model)
    fresh = Feeds.from_arrays({"x": rand(301, 3, 8, 8)}, model)
    small, removed = halved(model, data)
    twin, before = small.copy(), model_drift(model, small, fresh, threads=1)["y"]
    found = refine(model, small, removed, data, options=OPTIONS)
    assert model_drift(model, small, fresh, threads=1)["y"] < 0.95 * before
    assert found.steps > 0 and found.after < found.before and set(found.weights) == set(weights(model))
    refine(model, twin, removed, data, options=OPTIONS)
    assert all((weights(small)[name] == values).all() for name, values in weights(twin).items())


def test_weights_that_only_get_worse_stay() -> None:
    model = residual()
    data = Feeds.from_arrays({"x": rand(100, 3, 8, 8)}, model)
    small = model.copy()
    found = refine(model, small, {}, data, options=replace(OPTIONS, enough=-1.0))
    assert (
        found.weights
        and found.steps == 0
        and all((weights(small)[name] == values).all() for name, values in weights(model).items())
    )


def test_what_is_near_enough_stays() -> None:
    model = residual()
    data = Feeds.from_arrays({"x": rand(100, 3, 8, 8)}, model)
    small, removed = halved(model, data)
    before = weights(small)
    found = refine(model, small, removed, data, options=replace(OPTIONS, enough=1.0))
    assert 0 < found.before == found.after < 1 and not found.weights and not found.steps
    assert all((weights(small)[name] == values).all() for name, values in before.items())


def test_targets_are_outputs_and_what_everything_passes_through() -> None:
    model = residual()
    assert [goal.name for goal in targets(model, model.copy(), {}, {}, 9)] == ["y", "r", "f"]
    goal = targets(model, model.copy(), {("r", 1): np.array([2, 5])}, {}, 9)[1]
    assert goal.wanted(rand(2, 8, 3)).shape == (2, 6, 3)


@pytest.mark.parametrize(
    ("target", "trained"),
    [(["y"], {"w2"}), (["y", "a"], {"w1", "w2"}), (["y", "b"], {"w2"})],
)
def test_weights_above_an_operator_without_a_gradient_follow_targets_before_it_alone(
    target: list[str], trained: set[str]
) -> None:
    body = "a = MatMul(x, w1)\nb = Sign(a)\nc = Round(b)\nd = Add(c, a)\ny = MatMul(d, w2)"
    model = parse(body, {"w1": rand(4, 4), "w2": rand(4, 4)}, "(float[n, 4] x) => (float[n, 4] y)")
    gradient = differentiate(model, target, {"x": rand(3, 4)}, threads=1)
    assert gradient is not None and set(gradient.names) == trained


def test_outputs_follow_from_the_last_target_where_one_contraction_lies_between() -> None:
    model = residual()
    assert outputs_follow(model, targets(model, model.copy(), {}, {}, 9))
    assert not outputs_follow(model, targets(model, model.copy(), {}, {}, 0))
    two = parse(
        "a = MatMul(x, w1)\nr = Relu(a)\nb = MatMul(r, w2)\nc = MatMul(r, w3)\ny = Add(b, c)",
        {"w1": rand(4, 4), "w2": rand(4, 4), "w3": rand(4, 4)},
        "(float[n, 4] x) => (float[n, 4] y)",
    )
    assert [goal.name for goal in targets(two, two.copy(), {}, {}, 9)] == ["y", "r"]
    assert not outputs_follow(two, targets(two, two.copy(), {}, {}, 9))


def test_a_rate_that_is_too_large_is_seen_early() -> None:
    """Steps that lead away are taken back after a dozen, not after an eighth of all of them."""
    model = residual()
    data = Feeds.from_arrays({"x": rand(300, 3, 8, 8)}, model)
    small, removed = halved(model, data)
    patient = replace(OPTIONS, steps=200, rate=0.5, looks=2)
    found = refine(model, small, removed, data, options=patient)
    assert found.steps > 0 and found.after < found.before


def test_held_samples_choose() -> None:
    """Where they are given they are what errors are counted on, and all others are learned from."""
    model = residual()
    data = Feeds.from_arrays({"x": rand(300, 3, 8, 8)}, model)
    held = Feeds.from_arrays({"x": 3 * rand(60, 3, 8, 8)}, model)
    small, removed = halved(model, data)
    before = model_drift(model, small, held, threads=1)["y"]
    found = refine(model, small, removed, data, held=held, options=OPTIONS)
    assert found.before == pytest.approx(before**2, rel=1e-4)
    assert found.after == pytest.approx(model_drift(model, small, held, threads=1)["y"] ** 2, rel=1e-4)


def test_effort_counts_the_dense_network_once_a_sample() -> None:
    model = residual()
    data = Feeds.from_arrays({"x": rand(500, 3, 8, 8)}, model)
    small, _ = halved(model, data)
    whole, part = (ir.macs(m, ir.shapes_for(m, {"x": (1, 3, 8, 8)})) for m in (model, small))
    few = RefineOptions.within(400 * (whole + 3 * part), model, small, data)
    assert few.steps * few.batch == pytest.approx(400, abs=few.batch)
    again = RefineOptions.within(500 * whole + 3000 * 3 * part, model, small, data)
    assert again.steps * again.batch == pytest.approx(3000, abs=again.batch)
