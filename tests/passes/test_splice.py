"""Branches at the top level while statistics are collected: same results, and fitted weights find their way back."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from onnxprune import api, channels, ir
from onnxprune.ir.trial import open_session
from onnxprune.stats import Feeds, collect
from passes.structured_pruning.apply import prune
from passes.structured_pruning.compensate import compensate
from passes.structured_pruning.splice import adopt, runs, spliced
from passes.verify_masking import verify


def _floats(rng: np.random.Generator, *shape: int) -> str:
    return "{" + ", ".join(f"{value:.4f}" for value in rng.standard_normal(int(np.prod(shape)))) + "}"


def _model(rng: np.random.Generator, tail: str = "y1 = Tanh(b1)") -> ir.Model:
    """An MLP in the branch of an If inside the branch of another; the second branch needs inputs of 6 columns."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> net (float[N,6] x, bool c) => (float[N,M] z)
        {{
          h = Abs(x)
          z = If(c) <
            then_branch = p () => (float[N,M] y1)
            <float[6,16] A = {_floats(rng, 6, 16)}, float[16,16] B = {_floats(rng, 16, 16)}> {{
              m = MatMul(h, A)
              r = Relu(m)
              q = MatMul(r, B)
              k = Relu(q)
              b1 = If(c) <
                then_branch = s () => (float[N,4] t)
                <float[16,8] C = {_floats(rng, 16, 8)}, float[8,4] D = {_floats(rng, 8, 4)}> {{
                  u = MatMul(k, C)
                  v = Relu(u)
                  t = MatMul(v, D)
                }},
                else_branch = e () => (float[N,16] w) {{ w = Neg(k) }}
              >
              {tail}
            }},
            else_branch = q () => (float[N,M] y2) {{ y2 = Identity(h) }}
          >
        }}"""
    )
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def _names(graph: channels.ChannelGraph) -> set[str]:
    return {tensor for group in graph.groups for tensor, _ in group.owner}


def _feeds(rng: np.random.Generator, model: ir.Model, condition: bool = True) -> Feeds:
    scale = np.linspace(0.1, 2, 6, dtype=np.float32)
    x = rng.standard_normal((96, 6)).astype(np.float32) @ rng.standard_normal((6, 6)).astype(np.float32) * scale
    return Feeds.from_arrays({"x": x, "c": np.asarray(condition)}, model)


def test_a_spliced_model_computes_the_same(rng: np.random.Generator) -> None:
    model = _model(rng)
    graph = channels.analyze(model)
    assert [group.name for group in graph.groups] == ["A:1", "C:1"]
    open_form = spliced(model, _names(graph))
    assert {"m", "r", "q", "u", "v", "t"} <= set(ir.tensors(open_form))
    for condition in (True, False):
        feeds = {"x": rng.standard_normal((3, 6)).astype(np.float32), "c": np.asarray(condition)}
        protos = [ir.to_proto(each) for each in (model, open_form)]
        onnx.checker.check_model(protos[1], full_check=True)
        before, after = (open_session(proto.SerializeToString()).run(None, feeds)[0] for proto in protos)
        assert np.array_equal(before, after)


def test_a_fit_on_the_spliced_model_brings_the_outputs_back(rng: np.random.Generator) -> None:
    model = _model(rng)
    graph = channels.analyze(model)
    feeds = _feeds(rng, model)
    open_form = spliced(model, _names(graph))
    assert runs(open_form, feeds)
    statistics = collect(open_form, feeds)
    assert {"q", "t"} <= statistics.moments.keys()
    keep = {"A:1": np.arange(16) < 11}
    small = model.copy()
    prune(small, graph, keep)
    sliced = small.copy()
    fitted = spliced(small, _names(graph))
    compensate(open_form, fitted, graph.removals(keep), feeds, statistics=statistics)
    adopt(small, fitted)
    call = next(feeds.calls(96))
    outputs = [
        open_session(ir.to_proto(each).SerializeToString()).run(None, dict(call))[0] for each in (model, sliced, small)
    ]
    errors = [float(np.square(other - outputs[0]).sum()) for other in outputs[1:]]
    assert errors[1] < 0.7 * errors[0], errors
    removed = graph.removals(keep)
    assert not verify(model, small, removed, [dict(call)]).ok
    assert verify(model, small, removed, [dict(call)], weights="final").ok


def test_a_branch_that_the_inputs_do_not_take_is_fitted_too(rng: np.random.Generator) -> None:
    model = _model(rng)
    graph = channels.analyze(model)
    open_form = spliced(model, _names(graph))
    feeds = _feeds(rng, model, condition=False)
    assert runs(open_form, feeds)
    assert {"q", "t"} <= collect(open_form, feeds).moments.keys()


def test_pruning_says_which_groups_have_no_statistics(rng: np.random.Generator) -> None:
    """A body of Loop cannot be spliced; its groups are ranked by their weights."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> net (float[N,4] x) => (float[N,4] last)
        <int64 trips = {{3}}>
        {{
          last = Loop(trips, , x) <
            body = b (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] t)
            <float[4,8] A = {_floats(rng, 4, 8)}, float[8,4] B = {_floats(rng, 8, 4)}>
            {{ on = Identity(go) m = MatMul(s, A) h = Relu(m) t = MatMul(h, B) }}
          >
        }}"""
    )
    data = {"x": rng.standard_normal((32, 4)).astype(np.float32)}
    result = api.prune(proto, ratio=0.5, calib_data=data)
    assert any("1 groups inside subgraphs are ranked by their weights" in note for note in result.report["notes"])
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in each.graph.node[0].attribute[0].g.initializer}
        for each in (proto, result.model)
    )
    largest = np.sort(np.argsort(np.linalg.norm(before["A"], axis=0))[4:])
    assert np.array_equal(after["A"], before["A"][:, largest]) and np.array_equal(after["B"], before["B"][largest])
