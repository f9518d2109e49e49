from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats import Feeds, Runner, drift, model_drift, padding, run


def scaled(factor: float = 2.0, shape=("n", "t", 2)):
    """y = factor * relu(x) * mask[..., None]"""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Mul", ["r", "factor"], ["s"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axes"], ["m3"]),
        helper.make_node("Add", ["s", "m3"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.float32(factor), "factor"),
        onnx.numpy_helper.from_array(np.array([2]), "axes"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("mask", TensorProto.INT64, ("n", "t")),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    proto.ir_version = 8
    return ir.from_proto(proto)


def feeds(model, n=5, t=3):
    x = np.random.default_rng(0).standard_normal((n, t, 2)).astype(np.float32)
    mask = np.ones((n, t), np.int64)
    mask[:, -1] = 0
    return Feeds.from_arrays({"x": x, "mask": mask}, model)


def test_run_yields_intermediate_tensors_inputs_and_outputs():
    model = scaled()
    data = feeds(model)
    calls = list(run(model, data, ["r", "x", "y"], batch=2, threads=1))
    assert [len(call["r"]) for call in calls] == [2, 2, 1]
    x = data.arrays["x"]
    np.testing.assert_array_equal(np.concatenate([call["r"] for call in calls]), np.maximum(x, 0))
    np.testing.assert_array_equal(np.concatenate([call["x"] for call in calls]), x)
    assert list(calls[0]) == ["x", "r", "y"] or set(calls[0]) == {"x", "r", "y"}


def test_run_defaults_to_the_outputs_and_is_lazy():
    model = scaled()
    stream = run(model, feeds(model), batch=1, threads=1)
    assert set(next(stream)) == {"y"}


def test_part_between_tensors_needs_only_its_own_inputs():
    model = scaled()
    part = Runner(model, ["s"], ["r", "mask"], dtypes={"r": np.float32}, threads=1)
    np.testing.assert_array_equal(
        part({"r": np.ones((1, 1, 2), np.float32), "mask": None})["s"], np.full((1, 1, 2), 2, np.float32)
    )


def test_unknown_tensor_missing_input_and_bad_call_are_model_errors():
    model = scaled()
    with pytest.raises(ModelError, match="no tensor named 'nope'"):
        Runner(model, ["nope"], ["x"])
    with pytest.raises(ModelError, match="'mask' is needed"):
        Runner(model, ["y"], ["x"])
    with pytest.raises(ModelError, match="does not run") as caught:
        Runner(model, ["y"], ["x", "mask"], threads=1)(
            {"x": np.ones((1, 2, 2), np.float32), "mask": np.ones((1, 3), np.int64)}
        )
    assert "\n" not in str(caught.value)


def test_running_leaves_the_model_alone():
    model = scaled()
    before = ir.to_proto(model).SerializeToString()
    list(run(model, feeds(model), ["r"], threads=1))
    assert ir.to_proto(model).SerializeToString() == before


def test_drift_is_the_relative_error():
    a = [{"y": np.array([[3.0, 4.0]], np.float32)}]
    assert drift(a, a) == {"y": 0.0}
    assert drift(a, [{"y": np.array([[0.0, 0.0]], np.float32)}]) == {"y": pytest.approx(1.0)}
    assert drift(a, [{"y": np.array([[3.0, 4.5]], np.float32)}])["y"] == pytest.approx(0.1)
    assert drift(a, [{"y": np.array([[np.nan, 4.0]], np.float32)}])["y"] == float("inf")
    assert drift([{"k": np.array([1, 2, 3, 4])}], [{"k": np.array([1, 2, 3, 5])}]) == {"k": 0.25}
    with pytest.raises(ModelError, match="shape"):
        drift(a, [{"y": np.zeros(3, np.float32)}])


def test_drift_is_one_where_every_sample_has_the_mean():
    """Whatever the outputs have in common: their energy is about the mean of every element, not about zero."""
    y = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 2.0, 3.0] + [0.0, 5.0, -4.0]
    flat = np.broadcast_to(y.mean(0), y.shape)
    unbiased = np.sqrt(39 / 40)
    assert drift([{"y": y}], [{"y": flat}]) == {"y": pytest.approx(unbiased)}
    halves = [[{"y": part[:15]}, {"y": part[15:]}] for part in (y, flat)]
    assert drift(*halves) == {"y": pytest.approx(unbiased)}
    centred = y - y.mean(0)
    noise = 0.1 * np.random.default_rng(1).normal(size=y.shape)
    moved = drift([{"y": centred}], [{"y": centred + noise}])["y"]
    assert drift([{"y": y}], [{"y": y + noise}])["y"] == pytest.approx(moved, rel=0.02)  # of 40 samples


def test_drift_of_what_hardly_varies_is_bounded():
    y = np.full((8, 3), 5.0)
    assert drift([{"y": y}], [{"y": y + 0.05}])["y"] == pytest.approx(0.1)
    zero = np.zeros((8, 3))
    assert drift([{"y": zero}], [{"y": zero}]) == {"y": 0.0} and drift([{"y": zero}], [{"y": y}])["y"] == float("inf")


def test_drift_sums_over_calls_before_dividing():
    a = [{"y": np.array([[3.0]])}, {"y": np.array([[-4.0]])}]
    b = [{"y": np.array([[3.0]])}, {"y": np.array([[-3.0]])}]
    assert drift(a, b)["y"] == pytest.approx(0.2)  # of 25, which is less than the variance of two samples


def test_drift_of_outputs_whose_sizes_differ_is_relative_to_zero():
    a = [{"y": np.array([[3.0, 4.0]])}, {"y": np.array([[12.0]])}]
    b = [{"y": np.array([[3.0, 4.0]])}, {"y": np.array([[13.3]])}]
    assert drift(a, b)["y"] == pytest.approx(0.1)


def test_padding_is_hidden_by_the_attention_mask():
    model, changed = scaled(2.0), scaled(2.0)
    data = feeds(model)
    masks = list(padding(model, data, batch=2))
    np.testing.assert_array_equal(masks[0], [[1, 1, 0], [1, 1, 0]])
    reference = list(run(model, data, batch=2, threads=1))
    noisy = [{"y": call["y"] + np.array([0, 0, 9])[None, :, None]} for call in reference]
    assert drift(reference, noisy, masks) == {"y": 0.0}
    assert drift(reference, noisy)["y"] > 1
    assert model_drift(model, changed, data, threads=1) == {"y": 0.0}
    assert 0.1 < model_drift(model, scaled(3.0), data, threads=1)["y"] < 1
