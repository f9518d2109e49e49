"""Real models: what share of them is prunable, and that pruning them equals masking them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import channels, ir
from onnxprune.pipeline import PassContext, PassManager
from passes import canonical
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify

pytestmark = pytest.mark.zoo

SYMBOLS = {"batch": 2, "seq": 8, "h": 32, "w": 32}


def canonicalized(path: Path) -> ir.Model:
    model = ir.load(path)
    ir.freeze_initializers(model)
    model, _ = PassManager().run(model, canonical(), PassContext())
    ir.infer_shapes(model)
    return model


def feeds_of(model: ir.Model) -> dict[str, np.ndarray]:
    rng, feeds = np.random.default_rng(0), {}
    for tensor in ir.feed_inputs(model):
        shape = [dim if isinstance(dim, int) else SYMBOLS.get(dim, 1) for dim in tensor.shape]
        integer = np.dtype(tensor.dtype).kind in "iu"
        feeds[tensor.name] = (rng.integers(0, 2, shape) if integer else rng.standard_normal(shape)).astype(tensor.dtype)
    return feeds


def share(model: ir.Model, graph: channels.ChannelGraph, feeds: dict[str, np.ndarray]) -> float:
    """1 - MACs at every group's min_keep over MACs."""
    shapes = {name: values.shape for name, values in feeds.items()}
    least = model.copy()
    prune(least, graph, {group.name: np.arange(group.width) < group.min_keep for group in graph.groups})
    return 1 - ir.macs(least, ir.shapes_for(least, shapes)) / ir.macs(model, ir.shapes_for(model, shapes))


@pytest.mark.parametrize(
    ("name", "granularity", "groups", "least_share"),
    [
        ("resnet20/model.onnx", "head", 12, 0.99),
        ("resnet20/model_dynamo.onnx", "head", 12, 0.99),
        ("resnet56/model.onnx", "head", 30, 0.99),
        ("squeezenet11/model.onnx", "head", 25, 0.99),
        ("espcn_superres/model.onnx", "head", 3, 0.99),
        ("unet_sed/model.onnx", "head", 12, 0.99),
        ("ultraface_rfb320/model.onnx", "head", 25, 0.98),
        ("mobilenetv1_025_128/model.onnx", "head", 14, 0.98),
        ("resnet8_keras/model.onnx", "head", 6, 0.99),
        ("fastestdet_coco/model.onnx", "head", 34, 0.98),
        ("minilm_l6/model.onnx", "head", 12, 0.97),
        ("minilm_l6/model.onnx", "head_dim", 18, 0.98),
        ("sinet_portrait/model.onnx", "head", 17, 0.95),
        ("magika_v3_3/model.onnx", "head", 2, 0.99),
        ("kws_dscnn_tiny/model.onnx", "head", 5, 0.98),
        ("mnist_cntk/model.onnx", "head", 2, 0.95),
        ("skl_mlp_digits/model.onnx", "head", 2, 0.98),
        ("dtln_denoise/model_2.onnx", "head", 1, 0.67),  # the rest is two recurrent cells whose state the caller keeps
    ],
)
def test_prune_thirty_percent(zoo: Path, name: str, granularity: str, groups: int, least_share: float) -> None:
    model = canonicalized(zoo / name)
    graph = channels.analyze(model, granularity=granularity)
    assert len(graph.groups) == groups
    feeds = feeds_of(model)
    really = share(model, graph, feeds)
    assert really >= least_share
    shapes = ir.shapes_for(model, {name: values.shape for name, values in feeds.items()})
    assert graph.shares(model, shapes).prunable.macs == pytest.approx(really, abs=1e-9)
    rng, keep = np.random.default_rng(0), {}
    for group in graph.groups:
        gone = min(round(group.width * 0.3), group.width - group.min_keep)
        keep[group.name] = np.ones(group.width, bool)
        keep[group.name][rng.choice(group.width, gone, replace=False)] = False
    pruned = model.copy()
    prune(pruned, graph, keep)
    onnx.checker.check_model(ir.to_proto(pruned), full_check=True)
    verdict = verify(model, pruned, graph.removals(keep), [feeds])
    assert verdict.ok, verdict


def test_states_that_the_caller_keeps_are_named(zoo: Path) -> None:
    """Two LSTM layers whose states are inputs and outputs of the model: nothing of them can leave."""
    graph = channels.analyze(canonicalized(zoo / "dtln_denoise" / "model_1.onnx"))
    assert not graph.groups
    reasons = {frozen.axis: frozen.reason for frozen in graph.frozen}
    assert reasons["lstm_4_W", 1] == reasons["lstm_5_R", 1] == "graph input input_3"


def test_both_exports_have_the_same_groups(zoo: Path) -> None:
    one, two = (
        channels.analyze(canonicalized(zoo / "resnet20" / name)) for name in ("model.onnx", "model_dynamo.onnx")
    )
    assert [group.width for group in one.groups] == [group.width for group in two.groups]
    assert [len(group.contractions) for group in one.groups] == [len(group.contractions) for group in two.groups]
