"""Padding is left out of calls where the model is seen to make nothing of it, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import ir
from onnxprune.stats import Feeds, model_drift, run, trimmed

LENGTH, WIDTH, COUNT, STEP = 40, 4, 40, 16


def _model(*, masked: bool, length: int | str = "length") -> ir.Model:
    """Embeddings, and their mean: over the real positions, or over all of them."""
    shape = ["samples", length]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"]),
        helper.make_node("Cast", ["mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["weights"]),
        helper.make_node("Mul", ["tokens", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept" if masked else "tokens", "one"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "one"], ["many"], keepdims=0),
        helper.make_node("Div", ["total", "many"], ["mean"]),
    ]
    table = np.random.default_rng(0).normal(size=(50, WIDTH)).astype(np.float32)
    constants = {"table": table, "last": np.array([2], np.int64), "one": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("ids", "mask")],
        [
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [*shape, WIDTH]),
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["samples", WIDTH]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    return ir.from_proto(proto)


def _data(*, left: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 28, COUNT)
    mask = (np.arange(LENGTH)[None] < lengths[:, None]).astype(np.int64)
    ids = rng.integers(1, 50, (COUNT, LENGTH))
    return {"ids": ids, "mask": mask[:, ::-1].copy() if left else mask}


def test_calls_are_as_long_as_their_longest_sample() -> None:
    model, data = _model(masked=True), _data()
    feeds = Feeds.from_arrays(data, model)
    shorter = trimmed(feeds, model)
    assert shorter.padded is not None and shorter.padded.names == {"ids", "mask"}
    lengths = data["mask"].sum(1)
    assert shorter.padded.lengths.tolist() == sorted(lengths)
    for call in shorter.calls(8):
        longest = call["mask"].sum(1).max()
        assert call["ids"].shape == call["mask"].shape == (8, min(LENGTH, STEP * -(-longest // STEP)))
    assert len(shorter) == len(feeds)
    assert shorter.call_shapes() == {"ids": (1, 16), "mask": (1, 16)}


def test_the_outputs_of_every_sample_are_those_with_padding() -> None:
    model = _model(masked=True)
    feeds = Feeds.from_arrays(_data(), model)
    shorter = trimmed(feeds, model)
    order = np.argsort(feeds.arrays["mask"].sum(1), kind="stable")
    whole = np.concatenate([found["mean"] for found in run(model, feeds.take(order))])
    cut = np.concatenate([found["mean"] for found in run(model, shorter, batch=8)])
    np.testing.assert_allclose(cut, whole, rtol=1e-5)
    assert model_drift(model, model, shorter.split(0.5, 0)[1]) == {"tokens": 0.0, "mean": 0.0}


@pytest.mark.parametrize(
    ("masked", "left", "length"),
    [(False, False, "length"), (True, True, "length"), (True, False, LENGTH)],
    ids=["a mean over padding", "padding in front", "a fixed length"],
)
def test_feeds_stay_as_they_are(masked: bool, left: bool, length: int | str) -> None:
    model = _model(masked=masked, length=length)
    feeds = Feeds.from_arrays(_data(left=left), model)
    assert trimmed(feeds, model) is feeds


def test_samples_without_padding_stay_as_they_are() -> None:
    model, data = _model(masked=True), _data()
    feeds = Feeds.from_arrays({**data, "mask": np.ones_like(data["mask"])}, model)
    assert trimmed(feeds, model) is feeds
