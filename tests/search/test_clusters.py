"""Clusters: every node in one, and each a model that computes what the whole computes there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import canonical, channels, ir
from onnxprune.search.clusters import FREE, clusters, extract
from onnxprune.stats import Feeds, run

NAMES = ("residual", "digits_resnet", "digits_vit", "digits_mlp")


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, residual: Callable[..., ir.Model], models: Path) -> ir.Model:
    if request.param == "residual":
        return residual()
    base, _ = canonical.canonicalize_model(ir.load(models / f"{request.param}.onnx"))
    ir.infer_shapes(base)
    return base


def test_every_node_is_in_exactly_one_cluster(model: ir.Model) -> None:
    found = clusters(model, channels.analyze(model))
    keys = [ir.node_key(node) for cluster in found for node in cluster.nodes]
    assert len(keys) == len(set(keys))
    assert set(keys) == {ir.node_key(node) for node in model.graph.nodes if node.op not in FREE}


def test_clusters_compute_what_the_whole_model_computes(model: ir.Model) -> None:
    feeds = Feeds.synthetic(model, 2, 0)
    shapes = ir.shapes_for(model, {name: array.shape for name, array in feeds.arrays.items()})
    weights = ir.initializers(model)
    names = [name for name in ir.tensors(model) if name and name not in weights]
    values = next(iter(run(model, feeds, names)))
    for cluster in clusters(model, channels.analyze(model)):
        part = extract(model, cluster, shapes)
        onnx.checker.check_model(ir.to_proto(part), full_check=True)
        given = {tensor.name: values[tensor.name][None] for tensor in part.graph.inputs}
        found = next(iter(run(part, Feeds(given, entries=True))))
        assert found
        for name, value in found.items():
            np.testing.assert_allclose(value, values[name], rtol=1e-4, atol=1e-5)


def test_clusters_together_make_the_whole(model: ir.Model) -> None:
    """What leaves the model leaves some cluster, and no cluster needs a tensor that none gives."""
    feeds = Feeds.synthetic(model, 1, 0)
    shapes = ir.shapes_for(model, {name: array.shape for name, array in feeds.arrays.items()})
    parts = [extract(model, cluster, shapes) for cluster in clusters(model, channels.analyze(model))]
    made = {tensor.name for part in parts for tensor in part.graph.outputs}
    needed = {tensor.name for part in parts for tensor in part.graph.inputs}
    moved = {tensor.name for node in model.graph.nodes if node.op in FREE for tensor in node.outputs}
    assert needed <= made | moved | {tensor.name for tensor in model.graph.inputs}


def test_activation_and_residual_addition_join_the_contraction_before_them(residual: Callable[..., ir.Model]) -> None:
    model = residual(blocks=1)
    found = clusters(model, channels.analyze(model))
    assert [[node.op for node in cluster.nodes] for cluster in found] == [
        ["Conv", "Relu"],
        ["Conv", "Relu"],
        ["Conv", "Add", "Relu"],
        ["GlobalAveragePool"],
        ["Gemm"],
    ]
    assert [len(cluster.groups) for cluster in found] == [1, 2, 2, 1, 1]
