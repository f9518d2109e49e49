"""The canonical passes inside the bodies of If, Loop and Scan, and the initializers that move there."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from onnxprune import canonicalize, ir
from onnxprune.ir.trial import open_session
from onnxprune.pipeline import PassContext
from passes.inline_functions import InlineFunctions
from passes.sink_initializers import SinkInitializers

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
OUTER_WEIGHTS = """net (float[2,3] x, bool c) => (float[2,2] z)
<float[3,2] w = {1,2,3,4,5,6}, float[3,2] v = {1,0,1,0,1,0}, int64[2] k = {0,-1}, float[2] b = {1,2}>
{
  z0 = If(c) <
    then_branch = p () => (float[2,2] y1) { m1 = MatMul(x, w) n1 = Reshape(m1, k) y1 = Add(n1, b) },
    else_branch = q () => (float[2,2] y2) {
      m2 = MatMul(x, v)
      y2 = If(c) <
        then_branch = r () => (float[2,2] y3) { n2 = Reshape(m2, k) y3 = Add(n2, b) },
        else_branch = s () => (float[2,2] y4) { y4 = Neg(m2) }
      >
    }
  >
  z = Relu(z0)
}"""


def _same(before: onnx.ModelProto, after: onnx.ModelProto, *shape: int) -> None:
    onnx.checker.check_model(after, full_check=True)
    for condition in (True, False):
        feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32), "c": np.asarray(condition)}
        feeds = {info.name: feeds[info.name] for info in before.graph.input}
        outputs = [open_session(proto.SerializeToString()).run(None, feeds) for proto in (before, after)]
        for old, new in zip(*outputs, strict=True):
            assert np.allclose(old, new, rtol=1e-5, atol=1e-6)


def _constants(model: ir.Model) -> list[list[str]]:
    return [sorted(ir.initializers(graph)) for graph in ir.graphs(model)]


def _sunk(text: str, **options: int) -> ir.Model:
    proto = onnx.parser.parse_model(HEAD + text)
    model = ir.from_proto(proto)
    item = SinkInitializers(**options)
    item.run(model, PassContext())
    for body in ir.graphs(model)[1:]:
        item.run(body, PassContext())
    _same(proto, ir.to_proto(model), 2, 3)
    return model


def test_a_weight_moves_into_the_one_body_that_uses_it_and_a_shape_is_copied() -> None:
    model = _sunk(OUTER_WEIGHTS)
    assert _constants(model) == [["b"], ["k_1", "w"], ["v"], ["k_2"], []]
    assert not SinkInitializers().run(model, PassContext()).modified


def test_what_would_make_the_graph_too_large_stays_outside() -> None:
    assert _constants(_sunk(OUTER_WEIGHTS, max_bytes=30, max_elements=1)) == [["b", "k", "v"], ["w"], [], [], []]


def test_overridable_initializers_stay_outside() -> None:
    proto = onnx.parser.parse_model(HEAD + OUTER_WEIGHTS)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3, 2]))
    model = ir.from_proto(proto)
    SinkInitializers().run(model, PassContext())
    assert "w" in ir.initializers(model) and "v" not in ir.initializers(model)


def test_constants_batch_normalization_and_shape_arithmetic_of_a_body_are_resolved() -> None:
    proto = onnx.parser.parse_model(
        HEAD
        + """net (float[2,3,4,4] x, bool c) => (float[2,32] z)
        {
          z = If(c) <
            then_branch = p () => (float[2,32] y1) <float[2,3,1,1] w = {1,2,3,4,5,6}, float[2] g = {1,2}> {
              e = Constant <value = float[2] {0.5,0.25}> ()
              a = Conv(x, w)
              n = BatchNormalization(a, g, e, e, g)
              i = Identity(n)
              s = Shape(i)
              k = Constant <value = int64[1] {0}> ()
              h = Gather(s, k)
              l = Constant <value = int64[1] {-1}> ()
              t = Concat <axis = 0> (h, l)
              y1 = Reshape(i, t)
            },
            else_branch = q () => (float[2,32] y2) <float[2,3,1,1] w = {6,5,4,3,2,1}> {
              a = Conv(x, w)
              y2 = Flatten(a)
            }
          >
        }"""
    )
    canonical = canonicalize(proto)
    _same(proto, canonical, 2, 3, 4, 4)
    bodies = ir.graphs(ir.from_proto(canonical))[1:]
    assert [[node.op for node in body.graph.nodes] for body in bodies] == [["Conv", "Flatten"], ["Conv", "Flatten"]]
    assert canonicalize(canonical).SerializeToString() == canonical.SerializeToString()


def test_a_nested_if_with_a_known_condition_is_inlined_into_its_body() -> None:
    proto = onnx.parser.parse_model(
        HEAD
        + """net (float[2,3] x, bool c) => (float[2,3] z)
        {
          z = If(c) <
            then_branch = p () => (float[2,3] y1) {
              s = Shape(x)
              k = Constant <value = int64[2] {2,3}> ()
              e = Equal(s, k)
              f = Cast <to = 6> (e)
              m = ReduceMin <keepdims = 0> (f)
              on = Cast <to = 9> (m)
              y1 = If(on) <
                then_branch = r () => (float[2,3] y3) { y3 = Neg(x) },
                else_branch = s () => (float[2,3] y4) { y4 = Abs(x) }
              >
            },
            else_branch = q () => (float[2,3] y2) { y2 = Relu(x) }
          >
        }"""
    )
    canonical = canonicalize(proto)
    _same(proto, canonical, 2, 3)
    assert [[node.op for node in body.graph.nodes] for body in ir.graphs(ir.from_proto(canonical))] == [
        ["If"],
        ["Neg"],
        ["Relu"],
    ]


def test_functions_called_in_a_body_are_inlined_there() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "f": 1]> '
        """net (float[2,3] x, bool c) => (float[2,3] z)
        {
          z = If(c) <
            then_branch = p () => (float[2,3] y1) { y1 = f.twice(x) },
            else_branch = q () => (float[2,3] y2) { y2 = Relu(x) }
          >
        }
        <domain: "f", opset_import: ["": 17]> twice (a) => (b) { h = Neg(a) b = Neg(h) }"""
    )
    model = ir.from_proto(proto)
    assert InlineFunctions().run(model, PassContext()).modified
    assert [node.op for node in ir.graphs(model)[1].graph.nodes] == ["Neg", "Neg"]
    _same(proto, ir.to_proto(model), 2, 3)


def test_the_border_of_a_loop_keeps_its_signature() -> None:
    """A state that no node changes, an input that nothing reads, and an output that is constant all stay."""
    proto = onnx.parser.parse_model(
        HEAD
        + """net (float[2,3] x) => (float[2,3] last, float[3,1] ys)
        <int64 trips = {3}>
        {
          last, ys = Loop(trips, , x) <
            body = b (int64 i, bool go, float[2,3] s) => (bool on, float[2,3] t, float[1] y) {
              on = Identity(go)
              t = Identity(s)
              p = Constant <value = float[1] {2}> ()
              y = Add(p, p)
            }
          >
        }"""
    )
    canonical = canonicalize(proto)
    _same(proto, canonical, 2, 3)
    body = canonical.graph.node[0].attribute[0].g
    assert [info.name for info in body.input] == ["i", "go", "s"]
    assert [info.name for info in body.output] == ["on", "t", "y"]


def test_names_that_inference_invents_for_sizes_are_not_written() -> None:
    """ONNX Runtime takes sizes of one name to be equal, and each inference counts its inventions from 0."""
    proto = onnx.parser.parse_model(
        HEAD
        + """net (float[2,3] x, bool c) => (int64[P,Q] z)
        {
          z = If(c) <
            then_branch = p () => (int64[P,Q] y1) { n = NonZero(x) a = Abs(n) s = Identity(a) y1 = Neg(s) },
            else_branch = q () => (int64[P,Q] y2) { m = NonZero(x) t = Transpose(m) u = Abs(t) y2 = Neg(u) }
          >
        }"""
    )
    model = ir.from_proto(canonicalize(proto))
    ir.infer_shapes(model)
    written = ir.to_proto(model)
    assert b"unk__" not in written.SerializeToString()
    _same(proto, written, 2, 3)
