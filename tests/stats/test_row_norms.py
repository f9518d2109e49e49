from __future__ import annotations

import sys

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import channels, ir
from onnxprune.stats import Feeds, collect, products, run
from onnxprune.stats.row_norms import row_normalised, row_weights
from passes.structured_pruning import Options, compensate, prune

RNG = np.random.default_rng(0)
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 6] x) => (float[n, 6] y) {
  h = MatMul(x, w1)
  r = Relu(h)
  d = MatMul(r, w2)
  b = Add(d, w3)
  s = Add(b, x)
  y = LayerNormalization(s, g)
}
"""


def block():
    proto = onnx.parser.parse_model(TEXT)
    shapes = {"w1": (6, 12), "w2": (12, 6), "w3": (6,), "g": (6,)}
    for name, shape in shapes.items():
        array = RNG.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def feeds(model, n=600):
    sizes = np.exp(RNG.standard_normal((n, 1)) * 1.5)  # rows of very different size, as tokens are
    return Feeds.from_arrays({"x": (RNG.standard_normal((n, 6)) * sizes).astype(np.float32)}, model)


def test_finds_the_tensor_that_is_divided():
    model = block()
    assert row_normalised(model, products(model)) == {"d": "s"}


def test_moments_are_weighed_by_the_inverse_variance_of_the_sum():
    model = block()
    data = feeds(model)
    moments = collect(model, data, rows_a_column=100, batch=600, threads=1).moments
    call = next(run(model, data, ["r", "s", "x"], batch=600, threads=1))
    weights = row_weights(call["s"])
    expected = np.cov(call["r"].T.astype(np.float64), aweights=weights, ddof=0)
    np.testing.assert_allclose(moments["d"].covariance()[0], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(moments["d"].mean()[0], np.average(call["r"], axis=0, weights=weights), rtol=1e-4)
    plain = np.cov(call["x"].T.astype(np.float64), ddof=0)
    np.testing.assert_allclose(moments["h"].covariance()[0], plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weighing_brings_the_normalised_output_nearer(seed, monkeypatch):
    model = block()
    graph, data = channels.analyze(model), feeds(model)
    group = next(group for group in graph.groups if group.width == 12)
    keep = {group.name: np.random.default_rng(seed).permutation(12) < 8}
    errors = []
    for weigh in (True, False):
        if not weigh:
            module = sys.modules[compensate.__module__]
            monkeypatch.setattr(module, "row_weights", lambda rows: np.ones(len(rows)))
        small = model.copy()
        prune(small, graph, keep)
        compensate(model, small, graph.removals(keep), data, options=Options(threads=1, ridges=(1e-6,), held_out=0))
        dense, ours = (next(run(m, data, ["y"], batch=600, threads=1))["y"] for m in (model, small))
        errors.append(np.square(dense - ours).mean())
    assert errors[0] < errors[1]


def test_rows_without_deviation_do_not_decide_alone():
    rows = np.vstack([RNG.standard_normal((9, 4)), np.ones((1, 4))])
    weights = row_weights(rows)
    assert np.isfinite(weights).all() and weights[-1] <= 10.001 / np.median(rows.var(1))
