"""The entry check: honest models pass, malformed ones and bombs end with one line, whatever ONNX Runtime does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import LimitError, ModelError, UsageError


def test_honest_models_pass_from_file_and_proto(small_cnn, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(small_cnn.SerializeToString())
    assert ir.text(ir.validate(path)) == ir.text(ir.validate(small_cnn)) == ir.text(ir.from_proto(small_cnn))


def test_symbolic_sizes_that_must_be_large(make_model):
    kernel = numpy_helper.from_array(np.ones((1, 1, 9, 9), np.float32), "w")
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w_"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "a", "b"])
    proto = make_model([helper.make_node("Conv", ["x", "w"], ["y"])], [entry], [output], [kernel])
    ir.validate(proto)
    with pytest.raises(ModelError, match="cannot run"):
        ir.validate(proto, inputs={"x": np.zeros((1, 1, 4, 4), np.float32)})


def broken(small_cnn, change):
    change(small_cnn)
    return small_cnn


RUN_TIME_FAULTS = {
    "group zero": lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 0)),
    "wrong channels": lambda m: m.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((8, 4, 3, 3), np.float32), "w1")
    ),
    "unknown operator": lambda m: setattr(m.graph.node[1], "op_type", "Reluu"),
    "foreign domain": lambda m: (
        setattr(m.graph.node[1], "domain", "acme"),
        m.opset_import.append(helper.make_opsetid("acme", 1)),
    ),
    "no channels": lambda m: m.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((0, 3, 3, 3), np.float32), "w1")
    ),
    "wrong element type": lambda m: m.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((8, 3, 3, 3), np.int64), "w1")
    ),
}


@pytest.mark.parametrize("name", RUN_TIME_FAULTS)
def test_faults_that_only_a_run_finds(name, small_cnn):
    with pytest.raises(ModelError) as caught:
        ir.validate(broken(small_cnn, RUN_TIME_FAULTS[name]))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def grafted(nodes, weights, small_cnn):
    """The honest model with something hostile beside it."""
    small_cnn.graph.node.extend(nodes)
    small_cnn.graph.initializer.extend(weights)
    small_cnn.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["unknown"]))
    return small_cnn


def test_a_crash_of_the_runtime_is_an_error_of_the_model(small_cnn):
    weights = [
        numpy_helper.from_array(np.array([np.iinfo(np.int64).min]), "p"),
        numpy_helper.from_array(np.array([-1]), "q"),
    ]
    nodes = [helper.make_node("Div", ["p", "q"], ["r"]), helper.make_node("Cast", ["r"], ["d"], to=TensorProto.FLOAT)]
    with pytest.raises(ModelError, match="SIGFPE"):
        ir.validate(grafted(nodes, weights, small_cnn))


def test_a_memory_bomb_meets_the_limit(small_cnn):
    size = numpy_helper.from_array(np.array([3 << 28]), "size")
    with pytest.raises(LimitError, match="memory"):
        ir.validate(grafted([helper.make_node("ConstantOfShape", ["size"], ["d"])], [size], small_cnn))


def test_an_endless_loop_meets_the_limit(small_cnn):
    def scalar(name, kind):
        return helper.make_tensor_value_info(name, kind, [])

    body = helper.make_graph(
        [helper.make_node("Identity", ["ci"], ["co"]), helper.make_node("Identity", ["vi"], ["vo"])],
        "body",
        [scalar("i", TensorProto.INT64), scalar("ci", TensorProto.BOOL), scalar("vi", TensorProto.FLOAT)],
        [scalar("co", TensorProto.BOOL), scalar("vo", TensorProto.FLOAT)],
    )
    weights = [numpy_helper.from_array(np.int64(2**60), "trips"), numpy_helper.from_array(np.float32(1), "start")]
    node = helper.make_node("Loop", ["trips", "", "start"], ["d"], body=body)
    proto = grafted([node], weights, small_cnn)
    del proto.graph.output[-1].type.tensor_type.shape.dim[:]
    with pytest.raises(LimitError, match="longer than 2 s"):
        ir.validate(proto, seconds=2)


def test_inputs_too_large_to_try(make_model):
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 << 40])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1 << 40])
    with pytest.raises(ModelError, match="too large"):
        ir.validate(make_model([helper.make_node("Relu", ["x"], ["y"])], [entry], [output]))


def test_inputs_that_are_no_tensors_are_loaded_only(make_model):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    output = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    ir.validate(
        make_model([helper.make_node("SequenceLength", ["s"], ["y"])], [helper.make_value_info("s", kind)], [output])
    )


def test_string_and_integer_inputs(make_model):
    table = numpy_helper.from_array(np.ones((1, 4), np.float32), "table")
    infos = [
        helper.make_tensor_value_info("words", TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
    ]
    outputs = [
        helper.make_tensor_value_info("same", TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 4]),
    ]
    nodes = [helper.make_node("Identity", ["words"], ["same"]), helper.make_node("Gather", ["table", "ids"], ["rows"])]
    ir.validate(make_model(nodes, infos, outputs, [table]))


def test_missing_files():
    with pytest.raises(UsageError):
        ir.validate("missing.onnx")


def test_external_data_are_found_from_the_path(small_cnn, tmp_path, monkeypatch):
    onnx.save(small_cnn, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    assert ir.validate("m.onnx").side_files
