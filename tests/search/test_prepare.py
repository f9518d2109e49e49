"""Shapes that latency is measured at, samples that are kept apart, and models from a path or a proto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import ir
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.progress import SilentProgress
from onnxprune.search.prepare import concrete_inputs, load_feeds, prepare, split, stored
from onnxprune.stats import Feeds


def adder(*shapes: Sequence[int | str | None]) -> ir.Model:
    """A model with one float input of each shape, each passed through."""
    inputs = [helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, shape) for k, shape in enumerate(shapes)]
    nodes = [helper.make_node("Relu", [f"x{k}"], [f"y{k}"]) for k in range(len(shapes))]
    outputs = [helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, shape) for k, shape in enumerate(shapes)]
    graph = helper.make_graph(nodes, "adder", inputs, outputs)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def arrays(**shapes: Sequence[int]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("declared", "sample", "batch", "given", "expected"),
    [
        (["N", 3, 8], (5, 3, 8), 1, {}, (1, 3, 8)),
        (["N", 3, 8], (5, 3, 8), 4, {}, (4, 3, 8)),
        ([2, 3, 8], (6, 3, 8), 4, {}, (2, 3, 8)),
        (["N", "length"], (5, 12), 1, {}, (1, 12)),
        (["N", "length"], (5, 12), 1, {"x0": (1, 99)}, (1, 99)),
        ([None, 4], (5, 4), 3, {}, (3, 4)),
    ],
)
def test_the_measured_shape(
    declared: list[Any],
    sample: tuple[int, ...],
    batch: int,
    given: Mapping[str, Sequence[int]],
    expected: tuple[int, ...],
) -> None:
    model = adder(declared)
    feeds = Feeds.from_arrays(arrays(x0=sample), model)
    assert concrete_inputs(model, feeds, batch, given) == {"x0": expected}


def test_a_named_dimension_has_one_size_in_all_inputs() -> None:
    model = adder(["N", "length"], ["N", "length", 3])
    feeds = Feeds.from_arrays(arrays(x0=(4, 7), x1=(4, 7, 3)), model)
    assert concrete_inputs(model, feeds, 1, {"x0": (2, 9)}) == {"x0": (2, 9), "x1": (2, 9, 3)}


def test_entries_keep_their_own_first_axis() -> None:
    model = adder(["N", 4])
    feeds = Feeds.from_arrays(arrays(x0=(3, 5, 4)), model)
    assert feeds.entries
    assert concrete_inputs(model, feeds, 1, {}) == {"x0": (5, 4)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"z": (1,)}, "no input 'z'; its inputs are x0"),
        ({"x0": (1,)}, "has the shape Nx3x8, not 1"),
        ({"x0": (1, 3, 8, 8)}, "has the shape Nx3x8"),
        ({"x0": (1, 4, 8)}, "not 1x4x8"),
        ({"x0": (0, 3, 8)}, "not 0x3x8"),
    ],
)
def test_shapes_that_do_not_fit(given: Mapping[str, Sequence[int]], said: str) -> None:
    model = adder(["N", 3, 8])
    with pytest.raises(UsageError, match=said):
        concrete_inputs(model, Feeds.synthetic(model, 2, 0), 1, given)


def ready(path: Path, **changes: Any) -> Any:
    options = {"calib_data": None, "batch": 1, "input_shapes": {}, "freeze_initializers": False}
    options |= {"keep_batchnorm": False, "seed": 0, "progress": SilentProgress()}
    return prepare(path, **(options | changes))


def test_a_prepared_model(models: Path) -> None:
    found = ready(models / "digits_resnet.onnx", calib_data=models / "digits_calib.npz", batch=2)
    assert found.input_shapes == {"image": (2, 1, 32, 32)}
    assert not found.feeds.synthetic and found.records
    assert all(name in found.shapes for name in ir.tensors(found.base) if name)
    assert any(node.op == "BatchNormalization" for node in found.source.graph.nodes)
    assert not any(node.op == "BatchNormalization" for node in found.base.graph.nodes)


def test_batch_normalisation_is_kept_on_request(models: Path) -> None:
    found = ready(models / "digits_resnet.onnx", keep_batchnorm=True)
    assert any(node.op == "BatchNormalization" for node in found.base.graph.nodes)
    assert found.feeds.synthetic


def test_wrong_shapes_are_refused_before_anything_runs(models: Path) -> None:
    with pytest.raises(UsageError, match="not 1x1x32x31"):
        ready(models / "digits_resnet.onnx", input_shapes={"image": (1, 1, 32, 31)})


def test_wrong_data_and_wrong_models(models: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        ready(models / "digits_mlp.onnx", calib_data={"other": np.zeros((2, 2), np.float32)})
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError):
        ready(tmp_path / "m.onnx")


def test_the_search_never_sees_what_is_held_out() -> None:
    model = adder(["N", 1])
    feeds = Feeds.from_arrays({"x0": np.arange(4096, dtype=np.float32)[:, None]}, model)
    seen, held = split(feeds, 0)
    assert len(held) == 256 and len(seen) == 4096 - 256
    assert not set(seen.arrays["x0"].ravel()) & set(held.arrays["x0"].ravel())
    small, rest = split(feeds.take(range(16)), 0)
    assert (len(small), len(rest)) == (14, 2)
    np.testing.assert_array_equal(split(feeds, 0)[1].arrays["x0"], held.arrays["x0"])


def test_a_model_is_a_path_or_a_proto(tmp_path: Path) -> None:
    proto = ir.to_proto(adder(["N", 2]))
    assert onnx.load(stored(proto, tmp_path)) == proto
    with pytest.raises(UsageError, match="no model file at"):
        stored(tmp_path / "missing.onnx", tmp_path)


def test_data_in_every_form(tmp_path: Path) -> None:
    model = adder(["N", 2])
    np.savez(tmp_path / "d.npz", x0=np.ones((4, 2), np.float32))
    assert load_feeds(None, model, 0, {}).synthetic
    assert len(load_feeds(tmp_path / "d.npz", model, 0, {})) == 4
    assert len(load_feeds({"x0": np.ones((3, 2), np.float32)}, model, 0, {})) == 3
