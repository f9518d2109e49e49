"""What few samples make seem correlated is taken back; what is correlated stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxprune import channels, ir
from onnxprune.stats import Feeds, collect, model_drift
from onnxprune.stats.moments import Moments
from onnxprune.stats.shrinkage import shrunk
from passes.structured_pruning import build_levels, compensate, keep_mask, prune

Array = np.ndarray


def moments_of(x: Array, samples: int | None = None) -> Moments:
    found = Moments(samples=samples)
    found.add(x[None].astype(np.float32))
    return found


def correlated(rows: int, columns: int, strength: float, seed: int = 0) -> Array:
    """Columns that share one factor."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(0.1, 10, columns)
    return scales * (strength * rng.standard_normal((rows, 1)) + rng.standard_normal((rows, columns)))


def off_diagonal(matrix: Array) -> Array:
    return matrix[~np.eye(len(matrix), dtype=bool)]


def test_variances_stay_and_many_rows_change_nothing() -> None:
    covariance = np.cov(correlated(50, 20, 1.0).T, bias=True)[None]
    np.testing.assert_allclose(np.diag(shrunk(covariance, 50)[0]), np.diag(covariance[0]))
    np.testing.assert_allclose(shrunk(covariance, 1e9), covariance, rtol=1e-6)


def test_chance_is_taken_back_and_what_is_correlated_stays() -> None:
    for strength, low, high in ((0.0, 0.0, 0.2), (3.0, 0.9, 1.0)):
        covariance = np.cov(correlated(30, 60, strength).T, bias=True)[None]
        left = off_diagonal(shrunk(covariance, 30)[0]) / off_diagonal(covariance[0])
        assert low <= left.min() and left.max() <= high


def test_shrunk_is_nearer_to_the_truth() -> None:
    truth = np.cov(correlated(100_000, 40, 0.5, seed=1).T)
    scale = 1 / np.sqrt(np.diag(truth))
    for rows in (10, 40, 160):
        found = moments_of(correlated(rows, 40, 0.5))
        plain, better = (
            np.linalg.norm(scale[:, None] * (each[0] - truth) * scale) for each in (found.covariance(), found.shrunk())
        )
        assert better < plain


@pytest.mark.parametrize("groups", [1, 3])
def test_every_group_shrinks_for_itself_and_stays_positive(groups: int) -> None:
    parts = [np.cov(correlated(8, 20, k).T, bias=True) for k in range(groups)]
    together = shrunk(np.stack(parts), 8)
    for part, found in zip(parts, together, strict=True):
        np.testing.assert_allclose(found, shrunk(part[None], 8)[0])
        assert np.linalg.eigvalsh(found).min() > 0


def test_constant_columns_and_single_rows() -> None:
    constant = moments_of(np.ones((5, 4)))
    assert np.isfinite(constant.shrunk()).all()
    assert np.isfinite(moments_of(np.ones((1, 4))).shrunk()).all()


def test_columns_of_one_sample_count_less_than_those_of_many() -> None:
    x = correlated(400, 60, 0.3)
    few, many = (off_diagonal(moments_of(x, samples=count).shrunk()[0]) for count in (4, 400))
    np.testing.assert_allclose(many, off_diagonal(moments_of(x).shrunk()[0]))
    assert np.abs(few).sum() < 0.9 * np.abs(many).sum()


def classifier(features: int = 96) -> ir.Model:
    """A product, Tanh, and a product: the second one reads `features` columns."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((64, features)) / 8, "b": rng.standard_normal((features, 20)) / 8}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"]),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    ends = [helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 64), ("y", 20))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    ir.infer_shapes(model)
    return model


def test_fewer_samples_than_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """48 samples, 96 columns: without shrinkage what is left is fitted to the samples alone."""
    model = classifier()
    fitting, others = Feeds.synthetic(model, 48, 0), Feeds.synthetic(model, 200, 1)
    graph = channels.analyze(model)

    def drifted() -> float:
        statistics = collect(model, fitting)
        curves = build_levels(model, graph, None, statistics=statistics)
        keep = {group.name: keep_mask(curves[group.name], 64) for group in graph.groups}
        small = model.copy()
        prune(small, graph, keep)
        compensate(model, small, graph.removals(keep), fitting, statistics=statistics)
        return model_drift(model, small, others)["y"]

    with_it = drifted()
    monkeypatch.setattr(Moments, "shrunk", Moments.covariance)
    assert with_it < 0.8 * drifted()
