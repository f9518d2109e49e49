"""The evidence of real models, gathered and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.advice import advise
from onnxprune.advice.families import FAMILIES
from onnxprune.advice.machine import instructions
from onnxprune.errors import DataError, ModelError, UsageError


def saved(path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], weights: dict[str, np.ndarray]) -> Path:
    """A model from `x` of this shape to `y`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def names(found: dict, section: str) -> set[str]:
    return {row["rule"] for row in found[section]}


def test_a_residual_network_with_data(models: Path) -> None:
    found = advise(
        models / "digits_resnet.onnx", calib_data=models / "digits_calib.npz", target_latency="0.3x", threads=1
    )
    model = found["model"]
    assert (model["family"], model["groups"], model["branches"]["count"]) == (
        "residual CNN",
        [{"kind": "channel", "groups": 11, "units": 432, "widest": 128}],
        8,
    )
    assert model["latency_ms"] > 0 and model["lossless"] > 0
    assert {"widths", "second-order", "depth", "measured"} <= names(found, "tried")
    assert "data" not in names(found, "help") and found["data"] == {"given": True, "samples": 512}
    assert found["target"]["ratio"] == pytest.approx(0.3)
    low, high = found["cost"]["seconds"]["normal"]
    assert 0 < found["cost"]["seconds"]["fast"][0] < low < high


def test_a_transformer_without_data(models: Path) -> None:
    found = advise(models / "digits_vit.onnx", threads=1)
    assert found["model"]["family"] == "transformer"
    assert {"heads", "depth"} <= names(found, "tried") and "widths" not in names(found, "tried")
    assert {"data", "metric"} <= names(found, "help") and "second-order" not in names(found, "tried")


def test_a_recurrent_model_of_open_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"W": rng.normal(size=(1, 64, 8)), "R": rng.normal(size=(1, 64, 16)) / 4, "V": rng.normal(size=(16, 3))}
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], ["h"], hidden_size=16),
        helper.make_node("Squeeze", ["h", "one"], ["s"]),
        helper.make_node("MatMul", ["s", "V"], ["y"]),
    ]
    path = saved(tmp_path / "lstm.onnx", nodes, ["length", "batch", 8], weights)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    onnx.save(model, path)
    found = advise(path, threads=1)
    assert found["model"]["family"] == "recurrent"
    assert found["model"]["groups"][0]["kind"] == "hidden"
    assert "open-shape" in names(found, "help")
    given = advise(path, threads=1, input_shapes={"x": (5, 1, 8)})
    assert given["model"]["input_shapes"] == {"x": [5, 1, 8]} and "open-shape" not in names(given, "help")


def test_nothing_prunable(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    found = advise(saved(tmp_path / "one.onnx", nodes, [1, 8], {"w": np.ones((8, 4))}), threads=1)
    assert names(found, "cannot") >= {"nothing"} and not found["model"]["groups"]
    assert not names(found, "tried") & {"widths", "heads", "depth", "second-order"}
    plain = advise(saved(tmp_path / "none.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 8], {}), threads=1)
    assert plain["model"]["family"] == FAMILIES[0].name


def test_a_model_that_is_quantized_already(models: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    import onnxprune
    from passes.quantization.qdq import quiet

    onnx.save(onnxprune.canonicalize(models / "digits_mlp.onnx"), tmp_path / "float.onnx")
    with quiet():
        quantize_dynamic(tmp_path / "float.onnx", tmp_path / "q.onnx")
    found = advise(tmp_path / "q.onnx", threads=1)
    assert found["model"]["quantized"] and "quantized" in names(found, "cannot")
    assert not names(found, "tried") & {"static-int8", "dynamic-int8"}
    assert "choosing precision" not in {stage["stage"] for stage in found["cost"]["stages"]}


def test_wrong_shapes_and_data_end_in_one_line(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has the shape"):
        advise(models / "digits_resnet.onnx", input_shapes={"image": (1, 3, 32, 32)})
    np.savez(tmp_path / "wrong.npz", picture=np.zeros((2, 1, 32, 32), np.float32))
    with pytest.raises(DataError, match="must be named"):
        advise(models / "digits_resnet.onnx", calib_data=tmp_path / "wrong.npz")


def test_sizes_that_were_assumed_are_blamed(tmp_path: Path) -> None:
    shape = {"s": np.array([1, 48], np.int64)}
    path = saved(tmp_path / "fixed.onnx", [helper.make_node("Reshape", ["x", "s"], ["y"])], ["n", "m"], {})
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(shape["s"], "s"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="--input-shape"):
        advise(path, threads=1)


def test_instructions_are_read_from_the_system(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni amx_int8\n")
    arm.write_text("processor : 0\nFeatures\t: fp asimd asimddp\n")
    assert instructions(x86) == ("AVX2", "AVX-512", "VNNI", "AMX")
    assert instructions(arm) == ("NEON", "DOTPROD")
    assert instructions(tmp_path / "none") == ()
