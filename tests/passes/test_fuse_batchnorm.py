"""Golden rewrites, arithmetic and refusals of batch-norm fusion."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.fuse_batchnorm import FuseBatchnorm

RNG = np.random.default_rng(3)
OPSET = [helper.make_opsetid("", 17)]


def weights(**shapes):
    return {name: RNG.uniform(0.5, 2.0, shape).astype(np.float32) for name, shape in shapes.items()}


def model(nodes, arrays, x, y, outputs=(), dtype=TensorProto.FLOAT, opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, x)],
        [helper.make_tensor_value_info(name, dtype, y) for name in ("y", *outputs)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def batchnorm(source, target, **attributes):
    return helper.make_node("BatchNormalization", [source, "g", "b", "m", "v"], [target], **attributes)


NORM = {"g": (4,), "b": (4,), "m": (4,), "v": (4,)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_conv(apply, bias, group):
    arrays = weights(w=(4, 4 // group, 3, 3), c=(4,), **NORM)
    inputs = ["x", "w", "c"] if bias else ["x", "w"]
    nodes = [helper.make_node("Conv", inputs, ["h"], group=group), batchnorm("h", "y", epsilon=1e-3)]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 4, 6, 6], ["N", 4, 4, 4]))
    assert done.nodes == [f"y = Conv(x, w, {'c' if bias else 'w_bias'}) {{group={group}}}"]
    scale = arrays["g"] / np.sqrt(arrays["v"] + 1e-3)
    np.testing.assert_allclose(done.values("w"), arrays["w"] * scale[:, None, None, None], rtol=1e-6)
    start = arrays["c"] if bias else 0
    np.testing.assert_allclose(
        done.values("c" if bias else "w_bias"), (start - arrays["m"]) * scale + arrays["b"], rtol=2e-6, atol=1e-6
    )


@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(apply, group):
    arrays = weights(w=(6, 4 // group, 2, 2), **NORM)
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["h"], group=group, strides=[2, 2]), batchnorm("h", "y")]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 6, 3, 3], ["N", 4, 6, 6]))
    assert done.nodes == [f"y = ConvTranspose(x, w, w_bias) {{group={group}, strides=[2, 2]}}"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_alpha_and_beta(apply, transposed):
    arrays = weights(w=(4, 5) if transposed else (5, 4), c=(1, 4), **NORM)
    gemm = helper.make_node("Gemm", ["x", "w", "c"], ["h"], transB=transposed, alpha=0.5, beta=2.0)
    done = apply(FuseBatchnorm(), model([gemm, batchnorm("h", "y")], arrays, ["N", 5], ["N", 4]))
    assert done.nodes == [f"y = Gemm(x, w, c_fused) {{alpha=0.5, transB={transposed}}}"]


def test_matmul_with_bias_scale_and_shift_keeps_one_add(apply):
    arrays = weights(w=(5, 4), c=(1, 4), s=(4,), t=(1, 4))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["c", "a"], ["d"]),
        helper.make_node("Mul", ["d", "s"], ["e"]),
        helper.make_node("Add", ["e", "t"], ["y"]),
    ]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 5], ["N", 4]))
    assert done.nodes == ["a = MatMul(x, w)", "y = Add(a, w_bias)"]
    np.testing.assert_allclose(done.values("w_bias"), (arrays["c"] * arrays["s"] + arrays["t"])[0], rtol=1e-6)


def test_a_lone_add_behind_a_matmul_stays(apply):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "c"], ["y"])]
    assert not apply(FuseBatchnorm(), model(nodes, weights(w=(5, 4), c=(4,)), ["N", 5], ["N", 4])).result.modified


@pytest.mark.parametrize(
    ("op", "swapped"), [("Mul", 0), ("Mul", 1), ("Div", 0), ("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1)]
)
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (), (1,)])
def test_constants_behind_a_conv(apply, op, swapped, shape):
    arrays = weights(w=(4, 2, 1, 1), s=shape)
    inputs = ["s", "h"] if swapped else ["h", "s"]
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node(op, inputs, ["y"])]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 2, 3, 3], ["N", 4, 3, 3]))
    assert done.nodes == ["y = Conv(x, w, w_bias)"]


@pytest.mark.parametrize("shape", [(3,), (4, 3, 1), (2, 4, 1, 1), (1, 1, 4, 1, 1)])
def test_constants_that_vary_elsewhere_stay(apply, shape):
    arrays = weights(w=(4, 2, 1, 1), s=shape)
    rank = max(4, len(shape))
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Mul", ["h", "s"], ["y"])]
    proto = model(nodes, arrays, [2, 2, 3, 3], [None] * rank)
    assert not apply(FuseBatchnorm(), proto, sizes=({},)).result.modified


def test_a_scalar_that_would_widen_the_result_stays(apply):
    arrays = weights(w=(1, 2, 1, 1), s=(3, 1, 1))
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Mul", ["h", "s"], ["y"])]
    assert not apply(FuseBatchnorm(), model(nodes, arrays, [2, 2, 3, 3], [None] * 4), sizes=({},)).result.modified


def test_a_constant_divided_by_the_result_stays(apply):
    arrays = weights(w=(4, 2, 1, 1), s=(4, 1, 1))
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Div", ["s", "h"], ["y"])]
    assert not apply(FuseBatchnorm(), model(nodes, arrays, ["N", 2, 3, 3], ["N", 4, 3, 3])).result.modified


def test_a_shared_weight_is_copied_not_changed(apply):
    arrays = weights(w=(4, 4, 1, 1), c=(4,), **NORM)
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"], ["h"]),
        batchnorm("h", "n"),
        helper.make_node("Conv", ["n", "w", "c"], ["y"]),
    ]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3]))
    assert done.nodes == ["n = Conv(x, w_fused, c_fused)", "y = Conv(n, w, c)"]
    assert (done.values("w") == arrays["w"]).all()


def test_a_result_that_is_read_twice_or_put_out_stays(apply):
    arrays = weights(w=(4, 4, 1, 1), **NORM)
    conv = helper.make_node("Conv", ["x", "w"], ["h"])
    twice = [conv, batchnorm("h", "n"), helper.make_node("Add", ["h", "n"], ["y"])]
    assert not apply(FuseBatchnorm(), model(twice, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3])).result.modified
    put_out = [conv, batchnorm("h", "y")]
    done = apply(FuseBatchnorm(), model(put_out, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3], outputs=["h"]))
    assert not done.result.modified


def test_training_mode_is_a_skip(apply):
    arrays = weights(w=(4, 4, 1, 1), **NORM)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("BatchNormalization", ["h", "g", "b", "m", "v"], ["y", "rm", "rv"], training_mode=1),
    ]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3]), runs=False)
    assert not done.result.modified
    assert done.result.skips[0].reason == "it normalises with the statistics of the batch"


def test_a_variance_that_is_not_positive_is_a_skip(apply):
    arrays = weights(w=(4, 4, 1, 1), **NORM) | {"v": np.float32([1, -1, 1, 1])}
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), batchnorm("h", "y")]
    done = apply(FuseBatchnorm(), model(nodes, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3]), runs=False)
    assert [skip.reason for skip in done.result.skips] == ["its variance is not positive and finite"]


def test_an_overridable_weight_is_left_alone(apply):
    arrays = weights(w=(4, 4, 1, 1), **NORM)
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), batchnorm("h", "y")]
    proto = model(nodes, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3])
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4, 1, 1]))
    assert not apply(FuseBatchnorm(), proto, runs=False).result.modified


def test_half_precision_fuses_within_its_own_tolerance(apply):
    arrays = {name: array.astype(np.float16) for name, array in weights(w=(4, 4, 1, 1), s=(4, 1, 1)).items()}
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Mul", ["h", "s"], ["y"])]
    proto = model(nodes, arrays, ["N", 4, 3, 3], ["N", 4, 3, 3], dtype=TensorProto.FLOAT16)
    done = apply(FuseBatchnorm(), proto, runs=False)
    assert done.values("w").dtype == np.float16
    assert isinstance(proto, onnx.ModelProto)
