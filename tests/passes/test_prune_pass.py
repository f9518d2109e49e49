from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import ir
from onnxprune.errors import UsageError
from onnxprune.pipeline import PassContext
from onnxprune.pipeline_text import parse_pipeline
from onnxprune.stats import Feeds, model_drift
from passes.block_removal.removal import BlockRemoval
from passes.structured_pruning.structured import StructuredPruning

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 6] x) => (float[n, 6] y) {
  s0 = MatMul(x, w0)
  h1 = MatMul(s0, w1)
  r1 = Relu(h1)
  d1 = MatMul(r1, w2)
  s1 = Add(s0, d1)
  y = MatMul(s1, w3)
}
"""


def residual():
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (6, 8), "w1": (8, 16), "w2": (16, 8), "w3": (8, 6)}.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        )
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def context(model):
    x = np.random.default_rng(1).standard_normal((200, 6)).astype(np.float32)
    return PassContext(feeds=Feeds.from_arrays({"x": x}, model))


def size(model, name):
    return ir.initializers(model)[name].values.shape


@pytest.mark.parametrize("compensate", [True, False])
def test_ratio_removes_this_part_of_every_group(compensate):
    model = residual()
    result = StructuredPruning(ratio=0.25, compensate=compensate).run(model, context(model))
    assert result.modified and result.counts == {"groups": 2, "units": 6}
    assert size(model, "w1") == (6, 12) and size(model, "w0") == (6, 6)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_compensation_lowers_the_drift():
    drifts = []
    for compensate in (False, True):
        dense, model = residual(), residual()
        StructuredPruning(ratio=0.25, criterion="magnitude-l2", compensate=compensate).run(model, context(model))
        drifts.append(model_drift(dense, model, context(model).feeds, threads=1)["y"])
    assert drifts[1] < 0.7 * drifts[0]


def test_macs_sets_the_budget_of_the_whole_model():
    model = residual()
    before = ir.macs(model, ir.shapes_for(model, {"x": (1, 6)}))
    StructuredPruning(macs=0.6).run(model, context(model))
    assert 0.45 < ir.macs(model, ir.shapes_for(model, {"x": (1, 6)})) / before <= 0.6


def test_nothing_to_do_is_not_modified():
    model = residual()
    before = ir.to_proto(model).SerializeToString()
    assert not StructuredPruning().run(model, context(model)).modified
    assert ir.to_proto(model).SerializeToString() == before


def test_without_data_synthetic_input_is_used():
    model = residual()
    assert StructuredPruning(ratio=0.5).run(model, PassContext()).modified


def test_options_are_read_from_text_and_checked():
    (made,) = parse_pipeline("prune{macs=0.5,criterion=wanda,compensate=false}")
    assert made == StructuredPruning(macs=0.5, criterion="wanda", compensate=False)
    for wrong in ({"ratio": 1.0}, {"ratio": -0.1}, {"macs": 0.0}, {"macs": 0.5, "ratio": 0.5}, {"criterion": "x"}):
        with pytest.raises(UsageError):
            StructuredPruning(**wrong)


def test_drop_branches_drops_the_named_ones_and_says_which_it_could_not():
    dense, model = residual(), residual()
    (made,) = parse_pipeline("drop-branches{branches=s1+nope}")
    result = made.run(model, context(model))
    assert result.counts == {"branches": 1} and [skip.node for skip in result.skips] == ["nope"]
    assert [node.op for node in model.graph.nodes] == ["MatMul", "MatMul"]
    plain = residual()
    BlockRemoval(("s1",), compensate=False).run(plain, context(plain))
    feeds = context(model).feeds
    assert model_drift(dense, model, feeds)["y"] < model_drift(dense, plain, feeds)["y"]
    assert not made.run(model, context(model)).modified
