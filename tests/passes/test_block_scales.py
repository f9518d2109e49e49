"""Flat parameters of block-quantized weights get the shape of their blocks; everything else stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult
from passes.block_scales import BlockScales


def product(parameters: list[np.ndarray], *, uses: int = 1, overridable: bool = False) -> ir.Model:
    """`uses` products that share all their parameters. N=3, two blocks of 16."""
    values = {"b": np.zeros((3, 2, 8), np.uint8), **{f"p{k}": value for k, value in enumerate(parameters)}}
    names = ["x", *values]
    nodes = [
        helper.make_node("MatMulNBits", names, [f"y{k}"], domain="com.microsoft", K=32, N=3, bits=4, block_size=16)
        for k in range(uses)
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 32])]
    if overridable:
        inputs.append(helper.make_tensor_value_info("p0", TensorProto.FLOAT, parameters[0].shape))
    outputs = [helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, [2, 3]) for k in range(uses)]
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))


def run(model: ir.Model) -> PassResult:
    result = BlockScales().run(model, PassContext())
    onnx.checker.check_model(ir.to_proto(model))
    return result


@pytest.mark.parametrize("uses", [1, 2])
def test_flat_parameters_are_shaped_by_rows(uses: int) -> None:
    scales, zeros = np.arange(6, dtype=np.float32), np.arange(3, dtype=np.uint8)
    model = product([scales, zeros], uses=uses)
    assert run(model).counts == {"parameters": 2 * uses}
    for node in model.graph.nodes:
        assert np.array_equal(ir.constant(node.inputs[2]), scales.reshape(3, 2))
        assert np.array_equal(ir.constant(node.inputs[3]), zeros.reshape(3, 1))
    assert not run(model).modified


@pytest.mark.parametrize("shape", [(3, 2), (5,)])
def test_other_shapes_stay(shape: tuple[int, ...]) -> None:
    model = product([np.ones(shape, np.float32)])
    assert not run(model).modified
    assert model.graph.nodes[0].inputs[2].name == "p0"


def test_what_a_caller_may_override_stays() -> None:
    assert not run(product([np.ones(6, np.float32)], overridable=True)).modified
