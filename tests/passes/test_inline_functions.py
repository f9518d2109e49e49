"""Function inlining: golden, limits, recursion."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from onnxprune import ir
from onnxprune.errors import LimitError, ModelError
from onnxprune.pipeline import PassContext
from passes.inline_functions import InlineFunctions

NESTED = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
agraph (float[N] x) => (float[N] y) <float[1] w = {2}> { a = own.Outer(x, w) y = own.Outer(a, w) }
<domain: "own", opset_import: ["" : 17, "own" : 1]> Outer (v, s) => (r) { t = own.Inner(v) r = Mul(t, s) }
<domain: "own", opset_import: ["" : 17]> Inner (v) => (r) { t = Relu(v) r = Exp(t) }"""


def test_nested_calls_become_nodes(apply):
    done = apply(InlineFunctions(), onnx.parser.parse_model(NESTED))
    assert [line.split(" = ")[1].split("(")[0] for line in done.nodes] == ["Relu", "Exp", "Mul"] * 2
    assert not done.model.header.functions
    assert dict(done.result.counts) == {"calls": 2, "functions": 2}
    assert done.values("w").tolist() == [2]


def test_models_without_functions_are_left_alone(apply):
    assert not apply(InlineFunctions(), "agraph (float[2] x) => (float[2] y) { y = Relu(x) }").result.modified


def test_a_large_weight_passes_through_untouched(apply):
    proto = onnx.parser.parse_model(NESTED.replace("Mul(t, s)", "Add(t, s)"))
    big = onnx.numpy_helper.from_array(np.ones((1, 5000), np.float32), "w")
    proto.graph.initializer[0].CopyFrom(big)
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 5000
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    done = apply(InlineFunctions(), proto, sizes=({"N": 5000},))
    assert done.values("w").shape == (1, 5000)


def test_calls_that_multiply_are_refused_before_anything_is_inlined():
    levels = "\n".join(
        '<domain: "own", opset_import: ["" : 17, "own" : 1]> '
        f"F{k} (v) => (r) {{ t = own.F{k + 1}(v) r = own.F{k + 1}(t) }}"
        for k in range(32)
    )
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17, "own" : 1]>\n'
        f"agraph (float[2] x) => (float[2] y) {{ y = own.F0(x) }}\n{levels}\n"
        '<domain: "own", opset_import: ["" : 17]> F32 (v) => (r) { r = Relu(v) }'
    )
    with pytest.raises(LimitError, match="4294967296 nodes"):
        InlineFunctions().run(ir.from_proto(proto), PassContext())


def test_a_function_that_calls_itself_is_refused():
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        agraph (float[2] x) => (float[2] y) { y = own.F(x) }
        <domain: "own", opset_import: ["" : 17, "own" : 1]> F (v) => (r) { r = own.F(v) }"""
    )
    with pytest.raises(ModelError, match="calls itself"):
        InlineFunctions().run(ir.from_proto(proto), PassContext())
