from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import ir
from onnxprune.errors import DataError
from onnxprune.stats import Feeds


def graph(nodes, inputs, outputs, initializers=()):
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in initializers]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", values, results, constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    proto.ir_version = 8
    return ir.from_proto(proto)


def relu(shape=("n", 3, 4)):
    return graph([helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, shape)], [("y", shape)])


def embedding():
    table = np.zeros((7, 2), np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axes"], ["m3"]),
        helper.make_node("Mul", ["e", "m3"], ["y"]),
    ]
    inputs = [("ids", TensorProto.INT64, ("n", "t")), ("mask", TensorProto.INT64, ("n", "t"))]
    return graph(nodes, inputs, [("y", ("n", "t", 2))], [("table", table), ("axes", np.array([2]))])


def floats(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_samples_are_cut_into_batches_that_cover_them_once():
    feeds = Feeds.from_arrays({"x": floats(5, 3, 4)}, relu())
    batches = [call["x"] for call in feeds.calls(2)]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), floats(5, 3, 4))
    assert len(feeds) == 5 and feeds.synthetic is False


def test_one_more_axis_means_one_entry_a_call():
    feeds = Feeds.from_arrays({"x": floats(5, 2, 3, 4)}, relu())
    calls = list(feeds.calls(3))
    assert feeds.entries and len(calls) == len(feeds) == 5
    np.testing.assert_array_equal(calls[3]["x"], floats(5, 2, 3, 4)[3])


def test_fixed_batch_is_filled_and_a_remainder_left_out():
    feeds = Feeds.from_arrays({"x": floats(5, 3, 4)}, relu((2, 3, 4)))
    assert [len(call["x"]) for call in feeds.calls(64)] == [2, 2]
    np.testing.assert_array_equal(next(feeds.take([4]).calls())["x"], floats(5, 3, 4)[[4, 4]])


def test_split_is_disjoint_complete_and_repeatable():
    feeds = Feeds.from_arrays({"x": floats(10, 3, 4)}, relu())
    search, held_out = feeds.split(0.7, seed=3)
    assert (len(search), len(held_out)) == (7, 3)
    seen = np.concatenate([search.arrays["x"], held_out.arrays["x"]])[:, 0, 0]
    assert sorted(seen) == sorted(floats(10, 3, 4)[:, 0, 0])
    np.testing.assert_array_equal(feeds.split(0.7, seed=3)[1].arrays["x"], held_out.arrays["x"])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": floats(5, 3, 4)}, r"named \['x'\], found \['z'\]"),
        ({"x": floats(5, 3, 4), "z": floats(5)}, r"found \['x', 'z'\]"),
        ({"x": floats(5, 3, 5)}, r"shape \[\*, 3, 4\], found \[5, 3, 5\]"),
        ({"x": floats(5, 3)}, r"rank 3 .* found shape \[5, 3\]"),
        ({"x": floats(5, 3, 4).astype(np.float64)}, "must be float32, found float64"),
        ({"x": np.full((5, 3, 4), np.nan, np.float32)}, "NaN or infinite"),
        ({"x": np.full((5, 3, 4), np.inf, np.float32)}, "NaN or infinite"),
        ({"x": floats(0, 3, 4)}, "empty"),
        ({}, r"found \[\]"),
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_line(arrays, says):
    with pytest.raises(DataError, match=says) as caught:
        Feeds.from_arrays(arrays, relu())
    assert "\n" not in str(caught.value)


def test_inputs_must_agree_in_length_and_form():
    ids = np.zeros((4, 6), np.int64)
    with pytest.raises(DataError, match="differ in length: ids 4, mask 3"):
        Feeds.from_arrays({"ids": ids, "mask": ids[:3]}, embedding())
    with pytest.raises(DataError, match="rank"):
        Feeds.from_arrays({"ids": ids, "mask": ids[None]}, embedding())


def test_loads_npz_and_directories(tmp_path):
    model, x = relu(), floats(4, 3, 4)
    np.savez(tmp_path / "c.npz", x=x)
    np.testing.assert_array_equal(Feeds.load(tmp_path / "c.npz", model).arrays["x"], x)
    for name, kind in (("npy", None), ("parts", "npz")):
        (tmp_path / name).mkdir()
        if kind is None:
            np.save(tmp_path / name / "x.npy", x)
        else:
            np.savez(tmp_path / name / "a.npz", x=x[:1])
            np.savez(tmp_path / name / "b.npz", x=x[1:])
        np.testing.assert_array_equal(Feeds.load(tmp_path / name, model).arrays["x"], x)


def test_unreadable_files_are_data_errors(tmp_path):
    model = relu()
    np.savez(tmp_path / "pickle.npz", x=np.array([{"a": 1}], dtype=object))
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.npy").write_bytes(b"")
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, x=floats(50, 3, 4))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-200])
    expected = {
        "pickle.npz": "pickled",
        "torn.npz": "no readable",
        "text.txt": "must be",
        "none": "holds no",
        "cut.npz": "no readable",
    }
    for name, says in {**expected, "missing.npz": "not found"}.items():
        with pytest.raises(DataError, match=says) as caught:
            Feeds.load(tmp_path / name, model)
        assert "\n" not in str(caught.value)


def test_synthetic_indices_stay_inside_their_table_and_masks_hide_nothing():
    feeds = Feeds.synthetic(embedding(), 20, seed=0)
    ids, mask = feeds.arrays["ids"], feeds.arrays["mask"]
    assert feeds.synthetic is True and len(feeds) == 20
    assert ids.min() >= 0 and ids.max() == 6 and len(np.unique(ids)) == 7
    assert (mask == 1).all() and ids.shape == mask.shape == (20, 32)
    again = Feeds.synthetic(embedding(), 20, seed=0, shapes={"ids": (1, 5), "mask": (1, 5)})
    assert again.arrays["ids"].shape == (20, 5)


def test_synthetic_gives_entries_where_an_input_has_no_batch_axis():
    model = graph(
        [helper.make_node("Mul", ["x", "s"], ["y"])],
        [("x", TensorProto.FLOAT, ("n", 3)), ("s", TensorProto.FLOAT, ())],
        [("y", ("n", 3))],
    )
    feeds = Feeds.synthetic(model, 4, seed=1)
    assert (
        feeds.entries
        and feeds.arrays["s"].shape == (4,)
        and [call["x"].shape for call in feeds.calls()] == [(1, 3)] * 4
    )
