"""Channels inside If, Loop and Scan: what is free there, what the border pins, and what the reasons say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import channels, ir
from onnxprune.pipeline import PassContext, PassManager
from passes import canonical
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify

Prove = Callable[..., ir.Model]


def _model(text: str, rng: np.random.Generator, **weights: tuple[int, ...]) -> ir.Model:
    """The text as a model; `<name>` in it becomes the declaration of a random weight of that shape."""
    for name, shape in weights.items():
        values = ", ".join(f"{value:.4f}" for value in rng.standard_normal(int(np.prod(shape))))
        text = text.replace(f"<{name}>", f"float[{','.join(map(str, shape))}] {name} = {{{values}}}")
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> ' + text)
    onnx.checker.check_model(proto, full_check=True)
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


IF = """net (float[2,3] x, bool c) => (float[2,2] z)
< <P> >
{
  x1 = MatMul(x, P)
  z = If(c) <
    then_branch = a () => (float[2,2] y1) < <A>, <B> > { m1 = MatMul(x1, A) r1 = Relu(m1) y1 = MatMul(r1, B) },
    else_branch = b () => (float[2,2] y2) < <C> > { r2 = Sigmoid(x1) y2 = MatMul(r2, C) }
  >
}"""
IF_WEIGHTS = {"P": (3, 5), "A": (5, 6), "B": (6, 2), "C": (5, 2)}


def test_weights_of_a_branch_are_free_and_its_border_is_pinned(rng: np.random.Generator, prove: Prove) -> None:
    model = _model(IF, rng, **IF_WEIGHTS)
    graph = channels.analyze(model)
    assert [(group.name, group.width) for group in graph.groups] == [("A:1", 6)]
    assert [(group.node, group.tensor) for group in graph.groups[0].contractions] == [("y1", "B")]
    assert {frozen.axis: frozen.reason for frozen in graph.frozen} == {
        ("P", 1): "x1 is used inside a subgraph",
        ("B", 1): "y1 is an output of the then_branch of If z",
        ("C", 1): "y2 is an output of the else_branch of If z",
    }
    small = prove(model)
    branch = ir.graphs(small)[1]
    assert ir.initializers(branch)["A"].shape == (5, 3) and ir.tensors(branch)["r1"].shape == [2, 3]


def test_why_crosses_the_border(rng: np.random.Generator) -> None:
    graph = channels.analyze(_model(IF, rng, **IF_WEIGHTS))
    assert graph.explain("A", 1)[0] == "A:1: 6 of 6 in group A:1 (neuron, 6 units)"
    assert graph.explain("A", 0) == [
        "A:0: 5 of 5 frozen",
        "A:0",
        "MatMul m1 -> x1:1",
        "x1 is used inside a subgraph",
    ]
    assert graph.explain("P", 1)[-1] == "x1 is used inside a subgraph"


def test_state_and_slices_of_a_loop_are_pinned(rng: np.random.Generator, prove: Prove) -> None:
    model = _model(
        """net (float[2,4] x) => (float[2,4] last, float[3,2,5] ys)
        <int64 trips = {3}>
        {
          last, ys = Loop(trips, , x) <
            body = b (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t, float[2,5] y)
            < <A>, <B>, <C> >
            { on = Identity(go) m = MatMul(s, A) h = Relu(m) t = MatMul(h, B) y = MatMul(h, C) }
          >
        }""",
        rng,
        A=(4, 6),
        B=(6, 4),
        C=(6, 5),
    )
    graph = channels.analyze(model)
    assert [(group.name, group.width, len(group.contractions)) for group in graph.groups] == [("A:1", 6, 2)]
    assert graph.explain("A", 0)[-1] == "s is an input of the body of Loop last"
    assert graph.explain("C", 1)[-1] == "y is an output of the body of Loop last"
    prove(model)


def test_an_outer_weight_that_a_body_captures_stays(
    rng: np.random.Generator,
) -> None:
    model = _model(
        """net (float[2,3] x, bool c) => (float[2,2] z)
        < <A>, <B> >
        {
          z = If(c) <
            then_branch = a () => (float[2,2] y1) < <D> >
            { m1 = MatMul(x, A) n1 = MatMul(m1, D) r1 = Relu(n1) y1 = MatMul(r1, B) },
            else_branch = b () => (float[2,2] y2) < <C> > { m2 = MatMul(x, A) r2 = Sigmoid(m2) y2 = MatMul(r2, C) }
          >
        }""",
        rng,
        A=(3, 5),
        B=(4, 2),
        C=(5, 2),
        D=(5, 4),
    )
    graph = channels.analyze(model)
    assert not graph.groups
    assert {frozen.reason for frozen in graph.frozen if frozen.axis[0] in "AD"} == {
        "A is used inside a subgraph",
        "B is used inside a subgraph",
    }


def test_sizes_repeated_in_a_body_are_rewritten_in_that_body(rng: np.random.Generator, prove: Prove) -> None:
    """The Split sizes and the Reshape target are constants of the body, and each other user keeps its own."""
    model = _model(
        """net (float[2,3] x, bool c) => (float[2,2] z)
        {
          z = If(c) <
            then_branch = a () => (float[2,2] y1) < <A>, <B>, int64[2] parts = {6, 2}, int64[2] shape = {2, 8} >
            {
              m1 = MatMul(x, A) n1 = Reshape(m1, shape) p1, q1 = Split<axis = 1>(n1, parts)
              r1 = MatMul(p1, B) s1 = Relu(q1) y1 = Add(r1, s1)
            },
            else_branch = b () => (float[2,2] y2) < <C> > { y2 = MatMul(x, C) }
          >
        }""",
        rng,
        A=(3, 8),
        B=(6, 2),
        C=(3, 2),
    )
    graph = channels.analyze(model)
    assert [(group.name, group.width) for group in graph.groups] == [("A:1", 6)]
    small = prove(model)
    constants = {name: t.values.tolist() for name, t in ir.initializers(ir.graphs(small)[1]).items() if name[0] in "ps"}
    assert constants == {"shape.cut": [2, 5], "parts.cut": [3, 2]}
    assert not {"shape.cut", "parts.cut"} & ir.tensors(small).keys()


def test_names_frozen_by_pattern_are_found_in_bodies(rng: np.random.Generator) -> None:
    model = _model(IF, rng, **IF_WEIGHTS)
    graph = channels.analyze(model, freeze="^A$")
    assert not graph.groups
    assert graph.explain("A", 1)[-1] == "frozen by name: A"


def test_a_closed_subgraph_stays_a_barrier(rng: np.random.Generator) -> None:
    proto = ir.to_proto(_model(IF, rng, **IF_WEIGHTS))
    branch = proto.graph.node[1].attribute[0].g
    branch.node.append(onnx.helper.make_node("Identity", ["y1"], ["x1"]))  # written after it was read
    model = ir.from_proto(proto)
    graph = channels.analyze(model)
    assert not graph.groups
    assert graph.explain("P", 1)[-1] == "x1 is used inside a subgraph"
    prune(model, graph, {})


@pytest.mark.zoo
def test_both_networks_of_a_voice_detector(zoo: Path, rng: np.random.Generator) -> None:
    """One network for 16 kHz and one for 8 kHz, each in a branch of an If on the rate, all weights Constant nodes."""
    model, _ = PassManager().run(ir.load(zoo / "silero_vad/model.onnx"), canonical(), PassContext())
    ir.infer_shapes(model)
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [65, 128, 64, 64, 129, 128, 64, 64]
    keep = {group.name: rng.permutation(group.width) >= 0.3 * group.width for group in graph.groups}
    small = model.copy()
    prune(small, graph, keep)
    for rate, samples in ((16000, 576), (8000, 288)):
        feeds = {
            "input": rng.standard_normal((1, samples)).astype(np.float32),
            "state": rng.standard_normal((2, 1, 128)).astype(np.float32),
            "sr": np.asarray(rate),
        }
        verdict = verify(model, small, graph.removals(keep), [feeds])
        assert verdict.ok, verdict
    shapes = ir.shapes_for(model, {"input": (1, 576), "state": (2, 1, 128)})
    assert graph.shares(model, shapes).prunable.macs > 0.95
    assert {frozen.reason for frozen in graph.frozen if frozen.axis[0].endswith("encoder.3.reparam_conv.weight")} == {
        f"If_0_{branch}_branch__Inline_0__/encoder/3/activation/Relu_output_0 is used inside a subgraph"
        for branch in ("then", "else")
    }
