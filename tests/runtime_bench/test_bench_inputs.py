"""Inputs: cropped from data, or made up without ever inventing an index."""

from __future__ import annotations

import numpy as np
import pytest

from runtime_bench import inputs
from runtime_bench.inputs import Input
from runtime_bench.protocol import WorkerFault

IMAGE = Input("x", "float32", (None, 3, None, None))
IDS = Input("ids", "int64", (None, None))


def test_descriptions_are_parsed() -> None:
    described = [{"name": "x", "type": "tensor(float)", "shape": ["batch", 3, None, -1]}]
    assert inputs.parse(described) == [Input("x", "float32", (None, 3, None, None))]
    state = {"name": "state", "type": "tensor(double)", "shape": [2, "batch", 128]}
    assert inputs.parse([*described, state])[1] == Input("state", "float64", (2, None, 128), (0, 1))
    with pytest.raises(WorkerFault, match="cannot be fed") as caught:
        inputs.parse([{"name": "s", "type": "seq(tensor(float))", "shape": []}])
    assert caught.value.kind == "data"


def test_samples_along_the_first_axis_become_calls_of_a_batch(rng: np.random.Generator) -> None:
    data = rng.random((10, 3, 8, 8), dtype=np.float32)
    calls = inputs.calls_for([IMAGE], {"x": data}, 4, {})
    assert [c["x"].shape for c in calls] == [(4, 3, 8, 8)] * 2
    assert np.array_equal(calls[1]["x"], data[4:8])


def test_too_few_samples_are_repeated_to_fill_the_batch(rng: np.random.Generator) -> None:
    data = rng.random((3, 3, 4, 4), dtype=np.float32)
    (call,) = inputs.calls_for([IMAGE], {"x": data}, 8, {})
    assert call["x"].shape == (8, 3, 4, 4)
    assert np.array_equal(call["x"][3:6], data)


def test_data_is_cropped_to_the_shape_of_the_target(rng: np.random.Generator) -> None:
    ids = rng.integers(0, 30, (5, 64))
    calls = inputs.calls_for([IDS], {"ids": ids}, 1, {"ids": (1, 16)})
    assert all(c["ids"].shape == (1, 16) for c in calls)
    assert np.array_equal(calls[2]["ids"][0], ids[2, :16])
    with pytest.raises(WorkerFault, match="cannot give"):
        inputs.calls_for([IDS], {"ids": ids}, 1, {"ids": (1, 128)})


def test_one_rank_more_is_one_entry_a_call(rng: np.random.Generator) -> None:
    data = rng.random((20, 2, 3, 4, 4), dtype=np.float32)
    calls = inputs.calls_for([IMAGE], {"x": data}, 1, {})
    assert len(calls) == inputs.MAX_CALLS
    assert np.array_equal(calls[5]["x"], data[5])


def test_scalars_stay_scalars() -> None:
    rate = Input("sr", "int64", ())
    (call,) = inputs.calls_for([rate], {"sr": np.array(16000)}, 1, {})
    assert call["sr"].shape == () and call["sr"] == 16000
    many = inputs.calls_for([rate], {"sr": np.array([8000, 16000])}, 1, {})
    assert [int(c["sr"]) for c in many] == [8000, 16000]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no data for input 'x'; the data has none"),
        ({"y": np.zeros((1, 3, 4, 4))}, "the data has y"),
        ({"x": np.zeros((3, 4))}, "does not fit input"),
        ({"x": np.zeros((0, 3, 4, 4))}, "does not fit input"),
        ({"x": np.zeros((2, 5, 4, 4))}, "cannot give"),
        ({"x": np.zeros((2, 3, 4, 4), complex)}, "takes float32"),
    ],
)
def test_data_that_does_not_fit(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(WorkerFault, match=message):
        inputs.calls_for([IMAGE], arrays, 1, {})


def test_made_up_inputs_are_harmless() -> None:
    wanted = [
        Input("ids", "int64", (None, 6)),
        Input("attention_mask", "int64", (None, 6)),
        Input("flag", "bool", (2,)),
        Input("x", "float16", (None, 64)),
        Input("text", "str", (1,)),
    ]
    call = inputs.synthetic(wanted, 3, {})
    assert call["ids"].shape == (3, 6) and not call["ids"].any()
    assert call["attention_mask"].all() and call["flag"].all()
    assert call["x"].dtype == np.float16 and 0.7 < call["x"].std() < 1.3
    assert call["text"].tolist() == [""]
    assert np.array_equal(call["x"], inputs.synthetic(wanted, 3, {})["x"])


def test_open_dimensions_are_not_guessed() -> None:
    with pytest.raises(WorkerFault, match=r"'ids' \[\?,\?\] has open dimensions"):
        inputs.synthetic([IDS], 1, {})
    state = Input("state", "float32", (2, None, 8), (0, 1))
    assert inputs.synthetic([state], 3, {})["state"].shape == (2, 3, 8)
    assert inputs.synthetic([IDS], 1, {"ids": (2, 7)})["ids"].shape == (2, 7)
    with pytest.raises(WorkerFault, match="does not fit"):
        inputs.synthetic([IMAGE], 1, {"x": (1, 4, 8, 8)})
