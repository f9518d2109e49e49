"""A walk that is taken on in a model that differs behind it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import ir
from onnxprune.stats import Feeds, run
from onnxprune.stats.walk import Walk

BODY = """
a = Relu(x)
b = Mul(a, w)
s = Add(b, a)
c = Relu(s)
y = Mul(c, v)
"""


@pytest.fixture
def model() -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : 17]>\nnet (float[n, 4] x) => (float[n, 4] y) {{\n{BODY}\n}}'
    proto = onnx.parser.parse_model(text)
    for name in ("w", "v"):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1, -2, 3, 0.5]), name))
    return ir.from_proto(proto)


@pytest.fixture
def feeds(model: ir.Model) -> Feeds:
    return Feeds.synthetic(model, 70, 0)


def changed(model: ir.Model, name: str) -> ir.Model:
    """A copy with other values of a weight."""
    other = model.copy()
    ir.initializers(other)[name].values = np.float32([9, 8, 7, 6])
    return other


def without_branch(model: ir.Model) -> ir.Model:
    """A copy in which the sum is gone and its reader takes the shortcut."""
    other = model.copy()
    nodes = {node.outputs[0].name: node for node in other.graph.nodes}
    nodes["c"].inputs[0] = nodes["a"].outputs[0]
    for name in ("b", "s"):
        other.graph.nodes.remove(nodes[name])
    return other


@pytest.mark.parametrize("change", [lambda model: changed(model, "v"), without_branch])
def test_a_fork_goes_on_as_the_other_model_would(change: object, model: ir.Model, feeds: Feeds) -> None:
    other = change(model)  # type: ignore[operator]
    walk = Walk(model, feeds)
    fork = walk.fork(other, "a")
    assert fork is not None and not fork.is_ahead("a") and fork.is_ahead("y")
    for found, wanted in zip(fork.advance(["y"]), run(other, feeds, batch=32), strict=True):
        np.testing.assert_array_equal(found["y"], wanted["y"])
    for found, wanted in zip(walk.advance(["y"]), run(model, feeds, batch=32), strict=True):  # where it was
        np.testing.assert_array_equal(found["y"], wanted["y"])


def test_no_fork_where_what_has_run_differs(model: ir.Model, feeds: Feeds) -> None:
    other, walk = without_branch(model), Walk(model, feeds)
    assert walk.fork(other, "c") is None and walk.is_ahead("a")  # c depends on the sum here: nothing has run
    for _ in walk.advance(["s"]):
        pass
    assert walk.fork(other, "s") is None and walk.fork(changed(model, "v"), "a") is None
