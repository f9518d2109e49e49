"""The samples of a descent: calls of one size, with the dense tensors kept as far as memory goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune import ir
from onnxprune.stats import Feeds
from passes.refinement import batches
from passes.refinement.batches import Batches


class Dense:
    """Stands for the dense network: twice the input, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, call: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked += 1
        return {"y": 2 * call["x"]}


@pytest.fixture
def model() -> ir.Model:
    text = '<ir_version: 8, opset_import: ["" : 17]>\nnet (float[n, 2] x) => (float[n, 2] y) { y = Add(x, x) }'
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.fixture
def feeds(model: ir.Model) -> Feeds:
    return Feeds.from_arrays({"x": np.arange(44, dtype=np.float32).reshape(22, 2)}, model)


@pytest.mark.parametrize(("room", "asked"), [(1 << 20, 4), (3 * 40, 5), (0, 8)])
def test_dense_tensors_are_computed_once_as_far_as_memory_goes(
    model: ir.Model, feeds: Feeds, monkeypatch: pytest.MonkeyPatch, room: int, asked: int
) -> None:
    monkeypatch.setattr(batches, "_KEPT", room)
    dense = Dense()
    found = Batches(model, feeds, 5, dense, seed=None)
    assert len(found) == 4  # the two samples left over fill no call
    for _ in range(2):
        for place, batch in enumerate(found):
            np.testing.assert_array_equal(batch.call["x"], feeds.arrays["x"][5 * place : 5 * place + 5])
            np.testing.assert_array_equal(batch.wanted["y"], 2 * batch.call["x"])
    assert dense.asked == asked


def test_which_samples_share_a_call_is_drawn_with_the_seed(model: ir.Model, feeds: Feeds) -> None:
    drawn = [np.concatenate([b.call["x"][:, 0] for b in Batches(model, feeds, 11, Dense(), s)]) for s in (0, 0, 1)]
    assert sorted(drawn[0]) == sorted(feeds.arrays["x"][:, 0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any() and (drawn[0] != feeds.arrays["x"][:, 0]).any()
