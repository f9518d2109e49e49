"""What quantized and rearranged weights stand for, how they rank, and how fitted values are stored in them."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxprune import channels, ir
from onnxprune.stats import Feeds, collect, products
from onnxprune.stats.weights import effective_weights
from passes.structured_pruning.apply import prune
from passes.structured_pruning.compensate import UNASSIGNABLE, compensate
from passes.structured_pruning.criteria import CRITERIA, evidence
from passes.structured_pruning.sites import is_writable, write
from passes.verify_masking import verify

FLOAT = """<ir_version: 10, opset_import: ["" : 21]>
net (float[n, 6] x) => (float[n, 4] y) { h = Gemm(x, a, b) r = Relu(h) y = MatMul(r, c) }"""
QUANTIZED = """<ir_version: 10, opset_import: ["" : 21]>
net (float[n, 6] x) => (float[n, 4] y) <float one = {1}> {
  a = DequantizeLinear <axis = 1> (aq, as, az) b = DequantizeLinear <axis = 0> (bq, bs)
  h = Gemm(x, a, b) r = Relu(h)
  ct = DequantizeLinear <axis = 0> (cq, cs) c = Transpose <perm = [1, 0]> (ct) y = MatMul(r, c) }"""


def pair(rng: np.random.Generator) -> tuple[ir.Model, ir.Model]:
    """A quantized model, and the float model of what its weights stand for."""
    stored = {
        "aq": rng.integers(-120, 120, (6, 8)).astype(np.int8),
        "as": (rng.random(8) * 0.02 + 0.001).astype(np.float32),
        "az": rng.integers(-3, 3, 8).astype(np.int8),
        "bq": rng.integers(-900, 900, 8).astype(np.int32),
        "bs": np.full(8, 1e-3, np.float32),
        "cq": rng.integers(-120, 120, (4, 8)).astype(np.int8),
        "cs": (rng.random(4) * 0.02 + 0.001).astype(np.float32),
    }
    real = {
        "a": (stored["aq"] - stored["az"].astype(np.float32)) * stored["as"],
        "b": stored["bq"] * stored["bs"],
        "c": (stored["cq"] * stored["cs"][:, None]).T,
    }
    return with_weights(QUANTIZED, stored), with_weights(FLOAT, {n: v.astype(np.float32) for n, v in real.items()})


def with_weights(text: str, weights: dict[str, np.ndarray]) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    for name, values in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def test_effective_weights(rng):
    quantized, plain = pair(rng)
    found = effective_weights(quantized, ["a", "b", "c", "h", "x"])
    assert set(found) == {"a", "b", "c"}
    for name, values in found.items():
        np.testing.assert_allclose(values, ir.initializers(plain)[name].values, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random"}))
def test_criteria_see_what_the_weights_stand_for(rng, name):
    orders = []
    for model in pair(rng):
        statistics = collect(model, Feeds.from_arrays({"x": feeds(64)}, model))
        (group,) = channels.analyze(model).groups
        orders.append(CRITERIA[name].curve(evidence(model, group, statistics)).order.tolist())
    assert orders[0] == orders[1]


def test_write_stores_the_nearest_levels(rng):
    quantized, _ = pair(rng)
    tensors = ir.tensors(quantized)
    steps = {"a": tensors["as"].values, "b": np.float32(1e-3), "c": tensors["cs"].values}
    for name, step in steps.items():
        wanted = 0.9 * effective_weights(quantized, [name])[name]
        assert is_writable(tensors[name])
        write(tensors[name], wanted)
        error = np.abs(effective_weights(quantized, [name])[name] - wanted)
        assert (error <= 0.501 * step).all()
        assert error.max() > 0
    assert tensors["aq"].values.dtype == np.int8
    assert tensors["bq"].values.dtype == np.int32
    write(tensors["c"], np.full((8, 4), -9.0))
    assert (tensors["cq"].values == -128).all()


def test_what_others_read_is_not_written(rng):
    quantized, _ = pair(rng)
    tensors = ir.tensors(quantized)
    quantized.graph.nodes[0].inputs[0].outputs.append(quantized.graph.nodes[1])
    assert not is_writable(tensors["a"])
    assert not is_writable(tensors["x"])


def feeds(count: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, 6)).astype(np.float32)


def test_compensation_fits_quantized_weights(rng):
    """With four of eight units gone the outputs come closer, in the file's own types, and the oracle holds."""
    quantized, _ = pair(rng)
    graph = channels.analyze(quantized)
    keep = {graph.groups[0].name: np.arange(8) % 2 == 0}
    small = quantized.copy()
    prune(small, graph, keep)
    removed = graph.removals(keep)
    report = compensate(quantized, small, removed, Feeds.from_arrays({"x": feeds(256)}, quantized))
    (fit,) = report.fits
    assert fit.after < 0.8 * fit.before
    assert {name: t.values.dtype for name, t in ir.initializers(small).items()} == {
        name: t.values.dtype for name, t in ir.initializers(quantized).items()
    }
    assert verify(quantized, small, removed, [{"x": feeds(5)}], weights="final")
    assert not verify(quantized, small, removed, [{"x": feeds(5)}])


def test_operands_of_quantized_operators_are_ranked_and_not_fitted(rng):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 6] x) => (float[n, 4] y) {
      xq, xs, xz = DynamicQuantizeLinear(x) i = MatMulInteger(xq, a, xz) f = Cast <to = 1> (i) s = Mul(xs, as)
      h = Mul(f, s) r = Relu(h)
      rq, rs, rz = DynamicQuantizeLinear(r) j = MatMulInteger(rq, c, rz) g = Cast <to = 1> (j) t = Mul(rs, cs)
      y = Mul(g, t) }"""
    weights = {name: rng.integers(-90, 90, shape).astype(np.int8) for name, shape in {"a": (6, 8), "c": (8, 4)}.items()}
    weights |= {"as": (rng.random(8) * 0.05).astype(np.float32), "cs": np.float32(0.01)}
    model = with_weights(text, weights)
    np.testing.assert_allclose(effective_weights(model, ["a"])["a"], weights["a"] * weights["as"], rtol=1e-6)
    assert [(product.data, product.fixed) for product in products(model).values()] == [("x", True), ("r", True)]
    graph = channels.analyze(model)
    statistics = collect(model, Feeds.from_arrays({"x": feeds(64)}, model))
    curve = CRITERIA["obs"].curve(evidence(model, graph.groups[0], statistics))
    assert not np.array_equal(curve.order, np.arange(8))
    keep = {graph.groups[0].name: np.arange(8) != curve.order[0]}
    small = model.copy()
    prune(small, graph, keep)
    report = compensate(model, small, graph.removals(keep), Feeds.from_arrays({"x": feeds(64)}, model))
    assert report.fits == ()
    assert set(report.skipped.values()) == {UNASSIGNABLE}


def test_a_bias_that_others_read_stays_and_is_reckoned_with(rng):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 6] x) => (float[n, 4] y, float[n, 4] z) {
      h = MatMul(x, a) r = Relu(h) y = Gemm(r, c, b) z = Gemm(r, d, b) }"""
    shapes = {"a": (6, 12), "c": (12, 4), "d": (12, 4)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = with_weights(text, weights | {"b": np.full(4, 20, np.float32)})
    graph = channels.analyze(model)
    keep = {graph.groups[0].name: np.arange(12) > 2}
    small = model.copy()
    prune(small, graph, keep)
    report = compensate(model, small, graph.removals(keep), Feeds.from_arrays({"x": feeds(256)}, model))
    assert len(report.fits) == 2
    assert all(fit.after < fit.before for fit in report.fits)
    np.testing.assert_array_equal(ir.initializers(small)["b"].values, np.full(4, 20))
