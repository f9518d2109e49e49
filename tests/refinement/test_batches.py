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


@pytest.mark.parametrize(("room", "asked"), [(1 << 20, 7), (3 * 24, 11), (0, 14)])
def test_dense_tensors_are_computed_once_as_far_as_memory_goes(
    model: ir.Model, feeds: Feeds, monkeypatch: pytest.MonkeyPatch, room: int, asked: int
) -> None:
    monkeypatch.setattr(batches, "_KEPT", room)
    dense = Dense()
    found = Batches(model, feeds, 12, dense, seed=None)
    for _ in range(2):
        shards = [shard for batch in found for shard in batch]
        assert len(shards) == 7  # the sample that is left over fills no call
        for place, shard in enumerate(shards):
            np.testing.assert_array_equal(shard.call["x"], feeds.arrays["x"][3 * place : 3 * place + 3])
            np.testing.assert_array_equal(shard.wanted["y"], 2 * shard.call["x"])
    assert dense.asked == asked


@pytest.mark.parametrize(
    ("size", "calls"), [(12, [4, 3]), (20, [4]), (4, [4, 4, 4, 4, 4, 2]), (2, [2] * 11), (1, [1] * 22)]
)
def test_a_batch_is_a_few_calls(model: ir.Model, feeds: Feeds, size: int, calls: list[int]) -> None:
    found = Batches(model, feeds, size, Dense(), seed=None)
    assert [len(batch) for batch in found] == calls and len(found) == len(calls)


def test_which_samples_share_a_call_is_drawn_with_the_seed(model: ir.Model, feeds: Feeds) -> None:
    drawn = [
        np.concatenate([shard.call["x"][:, 0] for batch in Batches(model, feeds, 8, Dense(), seed) for shard in batch])
        for seed in (0, 0, 1)
    ]
    assert sorted(drawn[0]) == sorted(feeds.arrays["x"][:, 0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any() and (drawn[0] != feeds.arrays["x"][:, 0]).any()
