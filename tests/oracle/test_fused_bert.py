"""BERT as ONNX Runtime fuses it: the units of the plain graph are found again, and proved as strictly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from bert_graph import Bert, feeds, fused_by_runtime
from proving import prove, random_keep

import onnxprune
from onnxprune import api, channels, ir


def _fused_by_script(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """What the Python optimiser of ONNX Runtime makes of a model."""
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    onnx.save(model, str(folder / "plain.onnx"))
    found = optimizer.optimize_model(str(folder / "plain.onnx"), "bert", num_heads=4, hidden_size=24, opt_level=0)
    found.save_model_to_file(str(folder / "script.onnx"))
    return onnx.load(str(folder / "script.onnx"))


def _groups(model: onnx.ModelProto, granularity: str) -> tuple[ir.Model, channels.ChannelGraph]:
    original = ir.from_proto(model)
    ir.infer_shapes(original)
    return original, channels.analyze(original, granularity=granularity)


def _widths(graph: channels.ChannelGraph) -> Counter[tuple[str, int]]:
    return Counter((group.kind, group.width) for group in graph.groups)


@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("opset", [11, 14, 17])
@pytest.mark.parametrize("fuse", [fused_by_runtime, _fused_by_script])
def test_units_of_the_fused_graph(tmp_path: Path, fuse: object, opset: int, granularity: str) -> None:
    plain = Bert(opset=opset).model()
    assert callable(fuse)
    fused = fuse(plain, tmp_path)
    ops = {node.op_type for node in fused.graph.node}
    assert {"SkipLayerNormalization", "BiasGelu"} <= ops
    assert ("Attention" in ops) == (fuse is _fused_by_script or opset == 11)
    expected = _widths(_groups(plain, granularity)[1])
    assert expected["embedding", 24] == 1
    original, graph = _groups(fused, granularity)
    assert _widths(graph) == expected
    rng = np.random.default_rng(0)
    masks = {group.name: keep for group in graph.groups if (keep := random_keep(group, rng, 0.3)) is not None}
    for keep in ({graph.groups[0].name: masks[graph.groups[0].name]}, masks):
        verdict = prove(original, graph, keep, [feeds(rng)])
        assert verdict.ok, verdict


@pytest.mark.parametrize("opset", [11, 17])
def test_canonical_form_keeps_fused_operators(tmp_path: Path, opset: int) -> None:
    """LayerNormalization before opset 17 is ONNX Runtime's own, in the standard domain."""
    fused = fused_by_runtime(Bert(opset=opset).model(), tmp_path)
    canonical = onnxprune.canonicalize(fused)
    kinds = [Counter((n.domain, n.op_type) for n in m.graph.node) for m in (fused, canonical)]
    for key in (("com.microsoft", "SkipLayerNormalization"), ("com.microsoft", "BiasGelu"), ("", "LayerNormalization")):
        assert kinds[0][key] == kinds[1][key] > 0
    assert {(o.domain, o.version) for o in canonical.opset_import} >= {("", opset), ("com.microsoft", 1)}


def test_pruning_a_fused_file(tmp_path: Path) -> None:
    """The whole way, with default criterion and compensation: as many parameters leave as from the plain graph."""
    plain = Bert(opset=11).model()
    results = []
    for model in (plain, fused_by_runtime(plain, tmp_path)):
        result = api.prune(model, ratio=0.3)
        assert result.model is not None
        results.append(result.report)
    plain_report, fused_report = results
    assert fused_report["macs_ratio"] == pytest.approx(plain_report["macs_ratio"], rel=0.02)
    assert fused_report["macs_ratio"] < 0.8
    assert fused_report["drift"]["value"] < 0.5
