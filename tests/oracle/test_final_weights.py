"""Compensation and dropped branches on top of pruning: the oracle holds with the final weights."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Builder, SeededChooser, Value
from proving import random_keep

from onnxprune import channels, ir
from onnxprune.stats import Feeds
from passes.block_removal import branches, drop
from passes.structured_pruning.apply import prune
from passes.structured_pruning.compensate import compensate
from passes.structured_pruning.least_squares import predict, solve
from passes.verify_masking import verify


def residual_network() -> ir.Model:
    """A stem and three residual blocks with ReLU, a classifier; the middle convolutions have no bias."""
    b = Builder(SeededChooser(3), 17)
    x = b.input(4, 3, 8, 8)

    def conv(x: Value, out: int, bias: bool) -> Value:
        n, c, h, w = x.shape
        inputs = [x, b.weight(out, c, 3, 3, fan_in=9 * c), *([b.weight(out)] if bias else [])]
        return b.op("Conv", inputs, (n, out, h, w), pads=[1] * 4)

    y = b.unary("Relu", conv(x, 8, True))
    for _ in range(3):
        branch = conv(b.unary("Relu", conv(y, 12, False)), 8, True)
        y = b.unary("Relu", b.binary("Add", y, branch, y.shape))
    pooled = b.op("Flatten", [b.op("GlobalAveragePool", [y], (4, 8, 1, 1))], (4, 8))
    out = b.op("Gemm", [pooled, b.weight(5, 8), b.weight(5)], (4, 5), transB=1)
    model = ir.from_proto(b.finish([out], ["N"]))
    ir.infer_shapes(model)
    return model


def transformer() -> ir.Model:
    """Two feed-forward blocks whose products have separate biases, or none."""
    b = Builder(SeededChooser(4), 17)
    x = b.input(4, 6, 10)
    y = x
    for with_bias in (True, False):
        hidden = b.op("MatMul", [y, b.weight(10, 16, fan_in=10)], (4, 6, 16))
        hidden = b.unary("Relu", b.binary("Add", hidden, b.weight(16), hidden.shape))
        out = b.op("MatMul", [hidden, b.weight(16, 10, fan_in=16)], y.shape)
        y = b.binary("Add", y, b.binary("Add", out, b.weight(10), y.shape) if with_bias else out, y.shape)
    model = ir.from_proto(b.finish([b.op("MatMul", [y, b.weight(10, 3)], (4, 6, 3))], ["N"]))
    ir.infer_shapes(model)
    return model


@pytest.mark.parametrize("build", [residual_network, transformer])
@pytest.mark.parametrize("dropped", [False, True])
def test_compensated_model_is_its_masked_original(build, dropped: bool) -> None:
    original = build()
    feeds = Feeds.synthetic(original, 32, 0)
    graph = channels.analyze(original)
    rng = np.random.default_rng(1)
    keep = {g.name: mask for g in graph.groups if (mask := random_keep(g, rng, 0.4)) is not None}
    found = branches(original)
    gone = found[:1] if dropped else []
    assert found or build is transformer
    small = original.copy()
    prune(small, graph, keep)
    aliases = drop(small, gone)
    ir.infer_shapes(small)
    tensors = [_branch_tensor(original, branch) for branch in gone]
    removed = graph.removals(keep)

    sliced = verify(original, small, removed, feeds, dropped=tensors)
    assert sliced.ok, sliced
    report = compensate(original, small, removed, feeds, aliases=aliases)
    assert report.fits
    verdict = verify(original, small, removed, feeds, dropped=tensors, weights="final")
    assert verdict.ok, verdict
    assert not verify(original, small, removed, feeds, dropped=tensors).ok
    if gone:
        assert not verify(original, small, removed, feeds, weights="final").ok


def test_constant_inputs_leave_the_weights_near_the_centre() -> None:
    """Variances of constant columns are rounding noise, possibly negative: the fit must not divide by it."""
    rng = np.random.default_rng(0)
    x = np.full((1, 8, 5), 1.7, np.float32)
    t = rng.standard_normal((1, 8, 3)).astype(np.float32)
    centre = rng.standard_normal((1, 3, 5))
    solution = solve(x, t, centre)
    assert np.abs(solution.weights - centre).max() < 1
    assert np.allclose(predict(x, solution.weights, solution.bias).mean(1), t.mean(1), atol=1e-4)


@pytest.mark.parametrize("group", [8, 2])
def test_bias_created_for_a_grouped_transposed_convolution(group: int) -> None:
    b = Builder(SeededChooser(5), 17)
    x = b.input(4, 3, 6, 6)
    y = b.op("Conv", [x, b.weight(8, 3, 1, 1), b.weight(8)], (4, 8, 6, 6))
    z = b.op("ConvTranspose", [b.unary("Relu", y), b.weight(8, 2, 2, 2)], (4, 2 * group, 7, 7), group=group)
    original = ir.from_proto(b.finish([b.op("Conv", [z, b.weight(3, 2 * group, 1, 1)], (4, 3, 7, 7))]))
    ir.infer_shapes(original)
    graph = channels.analyze(original)
    keep = {g.name: random_keep(g, np.random.default_rng(0), 0.5) for g in graph.groups}
    small = original.copy()
    prune(small, graph, keep)
    feeds = Feeds.synthetic(original, 16, 0)
    compensate(original, small, graph.removals(keep), feeds)
    assert any(node.op == "ConvTranspose" and len(node.inputs) == 3 for node in small.graph.nodes)
    verdict = verify(original, small, graph.removals(keep), feeds, weights="final")
    assert verdict.ok, verdict


def _branch_tensor(model: ir.Model, branch) -> str:
    add = next(node for node in model.graph.nodes if ir.node_key(node) == branch.add)
    return add.inputs[branch.operand].name
