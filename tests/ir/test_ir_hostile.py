"""Ill-formed models are refused with one line that names the fault."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import FileSystemError, LimitError, ModelError, UsageError
from onnxprune.ir.functions import expanded_sizes


def relu(source, target):
    return helper.make_node("Relu", [source], [target])


def weight(name, size=4):
    return numpy_helper.from_array(np.ones(size, np.float32), name)


def branch(source):
    return helper.make_graph([relu(source, "t")], "b", [], [helper.make_value_info("t", onnx.TypeProto())])


def repeat(field):
    """An edit that appends the first entry of a field once more."""
    return edit(lambda model: getattr(model.graph, field).append(getattr(model.graph, field)[0]))


def edit(change):
    def apply(proto):
        change(proto)
        return proto

    return apply


GRAPHS = {
    "cycle": (lambda: [helper.make_node("Add", ["x", "q"], ["p"]), relu("p", "q"), relu("x", "y")], "cycle"),
    "self loop": (lambda: [helper.make_node("Add", ["x", "p"], ["p"]), relu("x", "y")], "cycle"),
    "written twice": (lambda: [relu("x", "y"), helper.make_node("Neg", ["x"], ["y"])], "written twice"),
    "written twice by one node": (lambda: [helper.make_node("Split", ["x"], ["y", "y"])], "listed twice"),
    "writes an input": (lambda: [relu("x", "y"), relu("y", "x")], "written twice"),
    "writes an initializer": (lambda: [relu("x", "y"), relu("y", "w")], "written twice"),
    "dangling input": (lambda: [relu("ghost", "y")], "nothing produces"),
    "ghost output": (lambda: [relu("x", "z")], "produced by nothing"),
    "no operator": (lambda: [helper.make_node("", ["x"], ["y"])], "no operator"),
    "dangling capture": (
        lambda: [
            helper.make_node(
                "If",
                ["w"],
                ["y"],
                then_branch=branch("ghost"),
                else_branch=branch("x"),
            )
        ],
        "subgraph reads 'ghost'",
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_ill_formed_graphs(name, make_model, vector):
    nodes, message = GRAPHS[name]
    with pytest.raises(ModelError, match=message):
        ir.from_proto(make_model(nodes(), [vector("x")], [vector("y")], [weight("w")]))


HEADERS = {
    "no graph": (edit(lambda m: m.ClearField("graph")), "not an ONNX model"),
    "no ir version": (edit(lambda m: m.ClearField("ir_version")), "not an ONNX model"),
    "future ir": (edit(lambda m: setattr(m, "ir_version", 99999)), "newer"),
    "no opset": (edit(lambda m: m.ClearField("opset_import")), "no opset"),
    "future opset": (edit(lambda m: setattr(m.opset_import[0], "version", 999)), "unknown"),
    "two opsets": (edit(lambda m: m.opset_import.add(domain="ai.onnx", version=11)), "two opsets of domain 'ai.onnx'"),
    "input twice": (repeat("input"), "graph input 'x' is listed twice"),
    "output twice": (repeat("output"), "graph output 'y' is listed twice"),
    "initializer twice": (repeat("initializer"), "initializer 'w1' is listed twice"),
    "initializer without a name": (edit(lambda m: m.graph.initializer.append(weight(""))), "without a name"),
    "attribute twice": (
        edit(lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0])),
        "attribute twice",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_ill_formed_headers(name, small_cnn):
    change, message = HEADERS[name]
    with pytest.raises(ModelError, match=message):
        ir.from_proto(change(small_cnn))


def test_the_same_opset_twice_says_nothing_new(small_cnn):
    small_cnn.opset_import.add(domain="", version=small_cnn.opset_import[0].version)
    written = ir.to_proto(ir.from_proto(small_cnn))
    assert list(written.opset_import) == list(small_cnn.opset_import)[:1]


def tensor_edit(**fields):
    def change(tensor):
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(tensor, name)[:]
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return change


TENSORS = {
    "product wraps to zero": (tensor_edit(dims=[2**32, 2**32]), "needs"),
    "product wraps to the true count": (tensor_edit(dims=[2**61 + 27, 8]), "needs"),
    "negative": (tensor_edit(dims=[-8, -3, 3, 3]), "negative"),
    "claims a terabyte": (tensor_edit(dims=[2**20, 2**18]), "needs"),
    "raw too short": (tensor_edit(raw_data=b"\0" * 860), "needs 864 bytes but has 860"),
    "raw too long": (tensor_edit(raw_data=b"\0" * 868), "needs 864 bytes but has 868"),
    "raw of odd size": (tensor_edit(raw_data=b"\0" * 863), "needs 864 bytes but has 863"),
    "raw and typed": (tensor_edit(float_data=[0.0] * 216), "twice"),
    "no element type": (tensor_edit(data_type=0), "element type 0"),
    "unknown element type": (tensor_edit(data_type=999), "element type 999"),
    "strings as raw data": (tensor_edit(data_type=TensorProto.STRING), "strings"),
    "external without a path": (tensor_edit(data_location=TensorProto.EXTERNAL), "another file"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_ill_formed_tensors(name, small_cnn):
    change, message = TENSORS[name]
    change(small_cnn.graph.initializer[0])
    with pytest.raises(ModelError, match=message):
        ir.from_proto(small_cnn)


def test_typed_data_of_the_wrong_length_or_field(small_cnn):
    tensor = small_cnn.graph.initializer[1]
    tensor.ClearField("raw_data")
    with pytest.raises(ModelError, match="needs 8 values but has 0"):
        ir.from_proto(small_cnn)
    tensor.int32_data.extend(range(8))
    with pytest.raises(ModelError, match="int32_data instead of float_data"):
        ir.from_proto(small_cnn)


def test_names_that_are_not_utf8(small_cnn):
    for name in (b"relu1", b"r1", b"w1"):
        data = small_cnn.SerializeToString().replace(name, b"\xff\xfe" + name[2:])
        proto = onnx.ModelProto.FromString(data)
        with pytest.raises(ModelError, match="UTF-8"):
            ir.from_proto(proto)


def test_sparse_indices_outside_the_shape(make_model):
    values, indices = weight("w", 2), numpy_helper.from_array(np.array([0, 10**9]), "i")
    sparse = helper.make_sparse_tensor(values, indices, [4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    model = ir.from_proto(make_model([relu("w", "y")], [], [output], sparse_initializer=[sparse]))
    with pytest.raises(ModelError, match="outside its shape"):
        _ = ir.initializers(model)["w"].values


FILES = {
    "empty": (b"", ModelError, "is empty"),
    "noise": (bytes(range(7, 256)) * 4, ModelError, "not an ONNX model"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ModelError, "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html>404</html>", ModelError, "web page"),
    "pickle": (b"\x80\x04\x95...", ModelError, "pickle"),
    "zip": (b"PK\x03\x04....", ModelError, "zip"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_models(name, tmp_path):
    data, error, message = FILES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        ir.load(path)
    assert "\n" not in str(caught.value)


def test_truncated_file(tmp_path, small_cnn):
    data = small_cnn.SerializeToString()
    for size in (len(data) // 2, len(data) - 1):
        path = tmp_path / "model.onnx"
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match="truncated"):
            ir.load(path)


def test_paths_that_are_no_files(tmp_path):
    for path in (tmp_path / "missing.onnx", tmp_path, tmp_path / "missing" / "model.onnx", "model\0.onnx"):
        with pytest.raises((UsageError, FileSystemError)):
            ir.load(path)


def doubling_functions(count):
    functions = [helper.make_function("c", "f0", ["a"], ["b"], [relu("a", "b")], [helper.make_opsetid("", 17)])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("c", 1)]
    for index in range(1, count):
        calls = [
            helper.make_node(f"f{index - 1}", ["a"], ["m"], domain="c"),
            helper.make_node(f"f{index - 1}", ["m"], ["b"], domain="c"),
        ]
        functions.append(helper.make_function("c", f"f{index}", ["a"], ["b"], calls, opsets))
    return functions


def test_functions_that_expand_without_bound(make_model, vector):
    def model(count):
        call = helper.make_node(f"f{count - 1}", ["x"], ["y"], domain="c")
        functions = doubling_functions(count)
        return make_model([call], [vector("x")], [vector("y")], domains=("c",), functions=functions, opset=17, ir=8)

    assert expanded_sizes(doubling_functions(11))["f10"] == 2**10
    ir.infer_shapes(ir.from_proto(model(4)))
    with pytest.raises(LimitError, match="4294967296 nodes"):
        ir.infer_shapes(ir.from_proto(model(33)))
    with pytest.raises(LimitError, match="4294967296 nodes"):
        ir.validate(model(33))


def test_functions_that_call_themselves():
    def function(name, callee):
        call = helper.make_node(callee, ["a"], ["b"], domain="c")
        return helper.make_function("c", name, ["a"], ["b"], [call], [helper.make_opsetid("c", 1)])

    for functions in ([function("f", "f")], [function("f", "g"), function("g", "f")]):
        with pytest.raises(ModelError, match="calls itself"):
            expanded_sizes(functions)


def test_a_long_chain_of_functions_is_no_recursion():
    opset = [helper.make_opsetid("c", 1)]
    functions = [
        helper.make_function(
            "c", f"f{i}", ["a"], ["b"], [helper.make_node(f"f{i + 1}", ["a"], ["b"], domain="c")], opset
        )
        for i in range(5000)
    ]
    assert expanded_sizes(functions)["f0"] == 1
