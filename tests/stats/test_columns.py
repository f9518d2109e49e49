from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import ir
from onnxprune.stats import Feeds, collect, products, run
from onnxprune.stats.columns import Sampler, columns, spatial, values_at

RNG = np.random.default_rng(0)


def single(op, weight, x, bias=None, **attrs):
    inputs = ["x", "w"] + (["b"] if bias is not None else [])
    constants = [onnx.numpy_helper.from_array(weight, "w")]
    if bias is not None:
        constants.append(onnx.numpy_helper.from_array(bias, "b"))
    node = helper.make_node(op, inputs, ["y"], **attrs)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x.shape[1:]])
    graph = helper.make_graph([node], "g", [value], [helper.make_empty_tensor_value_info("y")], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    return ir.from_proto(proto)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


CASES = [
    ("Conv", rand(6, 4, 3, 3), (3, 4, 7, 8), {"pads": [1, 1, 1, 1]}),
    ("Conv", rand(6, 4, 3, 2), (3, 4, 9, 8), {"pads": [0, 1, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", rand(6, 2, 3, 3), (3, 4, 7, 8), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", rand(6, 2, 2, 2), (3, 4, 7, 8), {"group": 2, "auto_pad": "SAME_LOWER"}),
    ("Conv", rand(8, 1, 3), (3, 4, 11), {"group": 4, "auto_pad": "VALID"}),
    ("Conv", rand(5, 3, 2, 3, 2), (2, 3, 4, 5, 4), {"strides": [1, 2, 1]}),
    (
        "ConvTranspose",
        rand(4, 6, 3, 3),
        (3, 4, 5, 6),
        {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]},
    ),
    ("ConvTranspose", rand(4, 3, 4), (3, 4, 6), {"group": 2, "strides": [3], "dilations": [2]}),
    ("Gemm", rand(5, 7), (4, 5), {"alpha": 0.5}),
    ("Gemm", rand(7, 5), (4, 5), {"transB": 1}),
    ("Gemm", rand(5, 7), (5, 4), {"transA": 1}),
    ("MatMul", rand(5, 7), (4, 3, 5), {}),
]


@pytest.mark.parametrize(("op", "weight", "shape", "attrs"), CASES)
def test_matrix_times_columns_is_the_node(op, weight, shape, attrs):
    x = rand(*shape)
    model = single(op, weight, x, **attrs)
    product = products(model)["y"]
    y = next(run(model, Feeds({"x": x}), batch=99, threads=1))["y"]
    batch, places = spatial(product, x)
    rows = Sampler(40, batch, seed=1).rows(0, batch, places)
    block = columns(product, x, rows)
    matrix = product.matrix(weight)
    assert block.shape == (product.groups, len(rows), product.size)
    out = np.einsum("grd,god->rgo", block, matrix).reshape(len(rows), -1)
    np.testing.assert_allclose(out, values_at(y, product.channel_axis, rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(product.values(matrix, weight.shape, weight.dtype), weight, rtol=1e-6)
    assert out.shape[1] == product.outputs


@pytest.mark.parametrize(("op", "weight", "shape", "attrs"), CASES)
def test_column_owner_names_the_columns_that_a_channel_feeds(op, weight, shape, attrs):
    product = products(single(op, weight, rand(*shape), **attrs))["y"]
    owner = np.arange(weight.shape[product.input_axis])
    for unit in owner:
        cut = weight.copy()
        cut[(slice(None),) * product.input_axis + (unit,)] = 0
        touched = product.column_owner(owner) == unit
        np.testing.assert_array_equal(product.matrix(cut), np.where(touched[:, None, :], 0, product.matrix(weight)))


def test_rows_are_shared_by_shape_repeatable_and_within_budget():
    sampler = Sampler(budget=100, samples=10, seed=0)
    rows = sampler.rows(3, 2, (8, 8))
    assert len(rows) == 20 and len(np.unique(rows)) == 20 and rows.max() < 128
    np.testing.assert_array_equal(rows, sampler.rows(3, 2, (8, 8)))
    assert not np.array_equal(rows, sampler.rows(4, 2, (8, 8)))
    np.testing.assert_array_equal(sampler.rows(0, 2, (3,)), np.arange(6))
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(sampler.rows(0, 2, (3,), mask), [0, 1, 3])


def test_moments_are_those_of_all_columns_whatever_the_batch():
    x, weight = rand(6, 4, 5, 5), rand(3, 2, 3, 3)
    model = single("Conv", weight, x, group=2, pads=[1, 1, 1, 1])
    product = products(model)["y"]
    everything = columns(product, x, np.arange(6 * 25)).astype(np.float64)
    for batch in (1, 4, 6):
        moments = collect(model, Feeds({"x": x}), batch=batch, threads=1).moments["y"]
        assert moments.count == 150
        np.testing.assert_allclose(moments.mean(), everything.mean(1), atol=1e-6)
        expected = np.stack([np.cov(group.T, bias=True) for group in everything])
        np.testing.assert_allclose(moments.covariance(), expected, atol=1e-5)


def test_computed_weights_are_no_products():
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3])])
    assert products(ir.from_proto(helper.make_model(graph))) == {}
