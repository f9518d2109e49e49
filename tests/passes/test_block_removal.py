from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import ir
from onnxprune.stats import Feeds, run
from passes.block_removal import branches, drop

TWO_BLOCKS = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 4] x) => (float[n, 4] y) {
  a = Relu(x)
  b1 = MatMul(a, w1)
  c1 = Relu(b1)
  d1 = MatMul(c1, w2)
  s1 = Add(d1, a)
  r1 = Relu(s1)
  b2 = MatMul(r1, w3)
  c2 = Sigmoid(b2)
  s2 = Add(r1, c2)
  r2 = Relu(s2)
  y = MatMul(r2, w4)
}
"""


def parse(text, **weights):
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    names = {name for node in proto.graph.node for name in node.input if name.startswith("w")}
    for name in sorted(names):
        array = weights.get(name, rng.standard_normal((4, 4)).astype(np.float32))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def outputs(model, x):
    return next(run(model, Feeds({"x": x}), threads=1))["y"]


X = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)


def test_finds_both_branches_of_a_chain():
    found = branches(parse(TWO_BLOCKS))
    assert [(b.name, b.kept, b.contractions) for b in found] == [("s1", "a", ("d1", "b1")), ("s2", "r1", ("b2",))]
    assert set(found[0].dropped) == {"b1", "c1", "d1"} and set(found[1].dropped) == {"b2", "c2"}


@pytest.mark.parametrize("picked", [(0,), (1,), (0, 1)])
def test_dropping_is_the_branch_times_zero(picked):
    model = parse(TWO_BLOCKS)
    found = branches(model)
    w = {name: tensor.values for name, tensor in ir.initializers(model).items()}
    a = np.maximum(X, 0)
    first = 0 if 0 in picked else np.maximum(a @ w["w1"], 0) @ w["w2"]
    r1 = np.maximum(a + first, 0)
    second = 0 if 1 in picked else 1 / (1 + np.exp(-(r1 @ w["w3"])))
    expected = np.maximum(r1 + second, 0) @ w["w4"]
    drop(model, [found[k] for k in picked])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(outputs(model, X), expected, rtol=1e-5, atol=1e-6)
    assert [b.name for b in branches(model)] == [b.name for k, b in enumerate(found) if k not in picked]


def test_aliases_name_the_sum_that_a_tensor_now_stands_for():
    model = parse(TWO_BLOCKS)
    first, second = branches(model)
    assert drop(model.copy(), [first]) == {"a": "r1"}
    assert drop(model.copy(), [second]) == {"r1": "r2"}
    both = model.copy()
    assert drop(both, [first, second]) == {"a": "r2"}
    assert [node.op for node in both.graph.nodes] == ["Relu", "MatMul"]


def test_a_branch_that_feeds_something_else_stays():
    text = TWO_BLOCKS.replace("(float[n, 4] y)", "(float[n, 4] y, float[n, 4] c1)")
    assert [b.name for b in branches(parse(text))] == ["s2"]


def test_a_branch_from_elsewhere_or_of_another_shape_is_none():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) {
      b = MatMul(z, w1)
      y = Add(x, b)
    }
    """
    assert branches(parse(text)) == []
    wide = text.replace("float[n, 4] z", "float[1, 4] z").replace("float[n, 4] x", "float[1, 1] x")
    assert branches(parse(wide)) == []


def test_a_branch_without_a_contraction_is_none_and_a_bias_is_none():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 4] x) => (float[n, 4] y) {
      r = Relu(x)
      s = Add(x, r)
      m = MatMul(s, w1)
      y = Add(m, w2)
    }
    """
    assert branches(parse(text, w2=np.zeros(4, np.float32))) == []


def test_a_graph_output_keeps_its_name():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 4] x) => (float[n, 4] y) {
      r = MatMul(x, w1)
      m = MatMul(r, w2)
      y = Add(r, m)
    }
    """
    model = parse(text)
    (branch,) = branches(model)
    drop(model, [branch])
    w1 = ir.initializers(model)["w1"].values
    np.testing.assert_allclose(outputs(model, X), X @ w1, rtol=1e-5, atol=1e-6)


def test_long_chains_take_linear_time():
    lines = ["h0 = Relu(x)"]
    for k in range(1500):
        lines += [f"m{k} = MatMul(h{k}, w1)", f"h{k + 1} = Add(h{k}, m{k})"]
    body = "\n".join([*lines, "y = Relu(h1500)"])
    text = f'<ir_version: 8, opset_import: ["" : 17]>\nnet (float[n, 4] x) => (float[n, 4] y) {{\n{body}\n}}'
    assert len(branches(parse(text))) == 1500


MASKED = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 4] x, float[n, 4] mask) => (float[n, 4] y) {
  h = MatMul(x, w1)
  m = Add(h, mask)
  d = MatMul(m, w2)
  y = Add(d, x)
}
"""


def test_a_branch_may_read_a_mask_beside_the_stream():
    (branch,) = branches(parse(MASKED))
    assert (branch.kept, branch.contractions) == ("x", ("d", "h"))


def test_a_search_for_the_start_of_a_branch_meets_the_nearest_ancestor_first():
    """The mask is made before everything else; the stream it does not lead to is long."""
    lines = ["s0 = Relu(x)", "z = Relu(mask)"]
    for k in range(600):
        lines += [f"a{k} = MatMul(s{k}, w1)", f"b{k} = Add(a{k}, z)", f"c{k} = MatMul(b{k}, w2)"]
        lines += [f"s{k + 1} = Add(c{k}, s{k})"]
    text = MASKED.split("h = ")[0] + "\n".join(lines) + "\ny = MatMul(s600, w3)\n}"
    assert len(branches(parse(text))) == 600


FUSED = """
<ir_version: 10, opset_import: ["" : OPSET, "com.microsoft" : 1]>
net (float[n, 3, 4] x) => (float[n, 3, 4] y, float[n, 3, 4] t) {
  b = MatMul(x, w1)
  BLOCK
  t = MatMul(n1, w2)
  y = Add(z, s1)
}
"""
SKIP = {
    "LayerNormalization": "n1, _, _, s1 = com.microsoft.SkipLayerNormalization <epsilon = 0.01> (b, x, wg, wb, wc)",
    "RMSNormalization": "n1, _, _, s1 = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, b, wg, wc)",
}


def fused(alone, opset=23):
    block = SKIP[alone] + "\n  z = Relu(n1)"
    text = FUSED.replace("OPSET", str(opset)).replace("BLOCK", block.replace("_, _", '"", ""'))
    vectors = {name: np.linspace(0.5, 2, 4, dtype=np.float32) * k for k, name in enumerate(("wg", "wb", "wc"), 1)}
    model = parse(text, **vectors)
    return model, dict.fromkeys(("x", "b", "n1", "s1", "z", "t", "y"), (2, 3, 4)), vectors


@pytest.mark.parametrize("alone", SKIP)
def test_dropping_from_a_fused_normalisation_leaves_what_normalises_alone(alone):
    model, shapes, v = fused(alone)
    (branch,) = branches(model, shapes)
    assert (branch.name, branch.kept) == ("s1", "x")
    x = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
    total = x + v["wc"]
    mean = total.mean(-1, keepdims=True) if alone == "LayerNormalization" else 0.0
    power = ((total - mean) ** 2).mean(-1, keepdims=True)
    normal = (total - mean) / np.sqrt(power + 0.01) * v["wg"] + (v["wb"] if alone == "LayerNormalization" else 0.0)
    assert drop(model, [branch]) == {"x.biased": "s1"}
    assert [node.op for node in model.graph.nodes] == ["Add", alone, "Relu", "MatMul", "Add"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(outputs(model, x), np.maximum(normal, 0) + total, rtol=1e-5, atol=1e-5)


def test_a_fused_normalisation_stays_where_the_opset_has_none_alone():
    model, shapes, _ = fused("RMSNormalization", opset=22)
    assert branches(model, shapes) == []
