"""What goes in comes out: every field of the proto, every element type, bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from onnxprune import ir
from onnxprune.ir import attributes

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SMALL_TYPES = [
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn",
    "int4",
    "uint4",
    "int2",
    "uint2",
]


def round_trip(proto):
    return ir.to_proto(ir.from_proto(proto))


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models_keep_every_field(path, assert_same):
    proto = onnx.load(path)
    result = round_trip(proto)
    proto.ir_version = max(proto.ir_version, 4)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [info for info in proto.graph.input if info.name not in constants]
    described = [info for info in proto.graph.input if info.name in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.value_info.extend(described)
    assert_same(proto, result)
    onnx_ir.from_proto(result)


def test_every_node_test_of_onnx_keeps_every_field(assert_same):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        protos = [case.model for case in collect_testcases(None) if case.model is not None]
    assert len(protos) > 1000
    for proto in protos:
        result = ir.to_proto(ir.from_proto(proto).copy())
        proto.ir_version = max(proto.ir_version, 4)
        assert_same(proto, result)


def full_featured(make_model):
    node = helper.make_node("LeakyRelu", ["x"], ["t"], name="n1", doc_string="node doc", alpha=0.25)
    node.attribute[0].doc_string = "attribute doc"
    node.metadata_props.add(key="pkg.torch.onnx.fx_node", value="v")
    node.device_configurations.add(configuration_id="c")
    last = helper.make_node("Add", ["t", "w"], ["y"], name="n2")
    middle = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", None, 0])
    middle.doc_string = "value doc"
    middle.metadata_props.add(key="k", value="v")
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 0])
    entry.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    entry.type.denotation = "IMAGE"
    weight = numpy_helper.from_array(np.zeros((3, 0), np.float32), "w")
    weight.doc_string = "weight doc"
    weight.metadata_props.add(key="origin", value="test")
    unused = numpy_helper.from_array(np.arange(3), "unused")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 0])
    ghost = helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, [1])
    proto = make_model([node, last], [entry], [output], [weight, unused], opset=23, ir=11, value_info=[middle, ghost])
    proto.doc_string, proto.domain, proto.model_version = "model doc", "org.example", 7
    proto.producer_name, proto.producer_version = "producer", "1.2"
    proto.metadata_props.add(key="task", value="test")
    proto.configuration.add(name="c", num_devices=2)
    proto.training_info.add().algorithm.name = "training"
    proto.graph.doc_string = "graph doc"
    proto.graph.metadata_props.add(key="g", value="v")
    annotation = proto.graph.quantization_annotation.add(tensor_name="t")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    return proto


def test_metadata_docs_versions_annotations_survive(make_model, assert_same):
    proto = full_featured(make_model)
    assert_same(proto, round_trip(proto))


def test_import_leaves_the_proto_alone(make_model):
    proto = full_featured(make_model)
    before = proto.SerializeToString(deterministic=True)
    model = ir.from_proto(proto)
    ir.to_proto(model)
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", SMALL_TYPES)
@pytest.mark.parametrize("touched", [False, True])
def test_small_element_types(name, touched, make_model):
    values = np.array([[1, 0, 1, 1, 0, 1, 1]], np.float32) + (name == "float8_e8m0fnu")
    tensor = numpy_helper.from_array(values.astype(getattr(ml_dtypes, name)), "w")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7])
    proto = make_model([helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)], [], [output], [tensor], 25, 13)
    model = ir.from_proto(proto)
    weight = ir.initializers(model)["w"]
    assert np.array_equal(weight.values.astype(np.float32), values)
    if touched:
        weight.values = weight.values.copy()
    assert ir.to_proto(model).graph.initializer[0].SerializeToString() == tensor.SerializeToString()


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "complex64", "complex128", "bool", "uint16", "int64", "object"]
)
@pytest.mark.parametrize("typed", [False, True])
def test_element_types_in_raw_and_typed_fields(dtype, typed, make_model):
    plain = ["a", "ü"] if dtype == "object" else [1, 0]
    values = np.array(plain, dtype=dtype)
    tensor = numpy_helper.from_array(values, "w")
    if typed and dtype != "object":
        stored = [1.0, 0.0] if values.dtype.kind in "fc" else plain
        tensor = helper.make_tensor("w", tensor.data_type, [2], stored)
    output = helper.make_tensor_value_info("y", tensor.data_type, [2])
    model = ir.from_proto(make_model([helper.make_node("Identity", ["w"], ["y"])], [], [output], [tensor]))
    weight = ir.initializers(model)["w"]
    before = ir.to_proto(model).graph.initializer[0]
    assert before.SerializeToString() == tensor.SerializeToString()
    weight.values = np.array(weight.values)
    after = ir.to_proto(model).graph.initializer[0]
    assert after.data_type == tensor.data_type
    assert numpy_helper.to_array(after).tolist() == values.tolist()


def test_values_are_read_only_views(small_cnn):
    weight = ir.initializers(ir.from_proto(small_cnn))["w1"]
    with pytest.raises(ValueError, match="read-only"):
        weight.values[0] = 0
    assert np.shares_memory(weight.values, weight.values)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("indices", [[0, 5], [[0, 0], [1, 2]]], ids=["linear", "coordinates"])
def test_sparse_initializer(raw, touched, indices, make_model):
    values, places = np.array([1.0, 2.0], np.float32), np.array(indices, np.int64)
    if raw:
        stored = numpy_helper.from_array(values, "w"), numpy_helper.from_array(places, "i")
    else:
        stored = (
            helper.make_tensor("w", TensorProto.FLOAT, [2], values.tolist()),
            helper.make_tensor("i", TensorProto.INT64, places.shape, places.ravel().tolist()),
        )
    sparse = helper.make_sparse_tensor(*stored, [2, 3])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    proto = make_model([helper.make_node("Identity", ["w"], ["y"])], [], [output], sparse_initializer=[sparse])
    model = ir.from_proto(proto)
    weight = ir.initializers(model)["w"]
    expected = [[1, 0, 0], [0, 0, 2]]
    assert weight.values.dtype == np.float32 and weight.values.tolist() == expected
    if touched:
        weight.values = weight.values.copy()
    graph = ir.to_proto(model).graph
    if touched:
        assert not graph.sparse_initializer and numpy_helper.to_array(graph.initializer[0]).tolist() == expected
    else:
        assert graph.sparse_initializer[0] == sparse and not graph.initializer


def typed_io():
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, "N"])
    return {
        "optional": helper.make_optional_type_proto(tensor),
        "sequence": helper.make_sequence_type_proto(tensor),
        "map": helper.make_map_type_proto(TensorProto.INT64, tensor),
        "sequence of maps": helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, tensor)),
        "sparse": helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
        "unknown rank": helper.make_tensor_type_proto(TensorProto.FLOAT, None),
        "scalar": helper.make_tensor_type_proto(TensorProto.FLOAT, []),
    }


@pytest.mark.parametrize("name", typed_io())
def test_typed_inputs_and_outputs(name, make_model, assert_same):
    kind = typed_io()[name]
    entry, output = helper.make_value_info("x", kind), helper.make_value_info("y", kind)
    proto = make_model(
        [helper.make_node("Identity", ["x"], ["t"]), helper.make_node("Identity", ["t"], ["y"])], [entry], [output]
    )
    proto.graph.value_info.append(helper.make_value_info("t", kind))
    assert_same(proto, round_trip(proto))
    assert_same(proto, ir.to_proto(ir.from_proto(proto).copy()))


def test_functions_keep_value_info_overloads_and_references(make_model, vector, assert_same):
    inner = helper.make_node("LeakyRelu", ["a"], ["b"])
    inner.attribute.add(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    functions = []
    for overload in ("one", "two"):
        function = helper.make_function("cust", "F", ["a"], ["b"], [inner], [helper.make_opsetid("", 21)], ["alpha"])
        function.overload, function.doc_string = overload, "doc"
        function.value_info.append(vector("a"))
        function.metadata_props.add(key="k", value="v")
        functions.append(function)
    nodes = []
    for source, target, overload in (("x", "t", "one"), ("t", "y", "two")):
        node = helper.make_node("F", [source], [target], domain="cust", alpha=0.5)
        node.overload = overload
        nodes.append(node)
    proto = make_model(nodes, [vector("x")], [vector("y")], domains=("cust",), functions=functions)
    assert_same(proto, round_trip(proto))


def test_attributes_without_a_plain_form(make_model, vector, assert_same):
    node = helper.make_node("Custom", ["x"], ["y"], domain="cust", blob=b"\xff\xfe")
    for kind, name in (
        (AttributeProto.INTS, "no_ints"),
        (AttributeProto.STRINGS, "no_strings"),
        (AttributeProto.FLOATS, "no_floats"),
    ):
        node.attribute.add(name=name, type=kind)
    tensors = node.attribute.add(name="tensors", type=AttributeProto.TENSORS)
    tensors.tensors.append(numpy_helper.from_array(np.ones(2, ml_dtypes.int4)))
    kind = node.attribute.add(name="kind", type=AttributeProto.TYPE_PROTO)
    kind.tp.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    values, indices = helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [3])
    sparse = node.attribute.add(name="sparse", type=AttributeProto.SPARSE_TENSOR)
    sparse.sparse_tensor.CopyFrom(helper.make_sparse_tensor(values, indices, [4]))
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "body", [], [vector("z")])
    graphs = node.attribute.add(name="graphs", type=AttributeProto.GRAPHS)
    graphs.graphs.extend([body, body])
    node.attribute.add(name="text", type=AttributeProto.STRING, s=b"")
    proto = make_model([node], [vector("x")], [vector("y")], domains=("cust",))
    model = ir.from_proto(proto)
    attrs = model.graph.nodes[0].attrs
    assert isinstance(attrs["blob"], AttributeProto) and isinstance(attrs["no_ints"], AttributeProto)
    assert attrs["text"] == ""
    assert_same(proto, ir.to_proto(model))


float32s = st.floats(width=32, allow_nan=False)
plain_values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    float32s,
    st.text(),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(float32s, min_size=1),
    st.lists(st.text(), min_size=1),
)


@given(plain_values)
@settings(max_examples=200, deadline=None)
def test_plain_attributes_come_back_as_they_are(value):
    proto = attributes.write("a", value)
    onnx.checker.check_attribute(proto)
    back = attributes.read(onnx.AttributeProto.FromString(proto.SerializeToString()))
    assert type(back) is type(value) and back == value


@given(
    st.lists(st.integers(0, 6), max_size=3),
    st.sampled_from(["float32", "int64", "bool", "float16", "uint8"]),
    st.randoms(),
)
@settings(max_examples=50, deadline=None)
def test_any_initializer_survives_any_copy(shape, dtype, random):
    values = np.array([random.randrange(2) for _ in range(int(np.prod(shape)))], dtype).reshape(shape)
    tensor = numpy_helper.from_array(values, "w")
    output = helper.make_tensor_value_info("y", tensor.data_type, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    model = ir.from_proto(helper.make_model(graph)).copy()
    assert np.array_equal(ir.initializers(model)["w"].values, values)
    assert ir.to_proto(model).graph.initializer[0] == tensor


def test_overridable_initializers_by_ir_version(make_model, vector):
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    old = ir.from_proto(make_model(nodes, [vector("x"), vector("w")], [vector("y")], [weight], opset=8, ir=3))
    assert [tensor.name for tensor in old.graph.inputs] == ["x"]
    assert ir.constant(ir.tensors(old)["w"]).tolist() == [1, 1, 1, 1]
    exported = ir.to_proto(old)
    assert exported.ir_version == 4 and [info.name for info in exported.graph.input] == ["x"]
    onnx.checker.check_model(exported, full_check=True)

    proto = make_model(nodes, [vector("x"), vector("w")], [vector("y")], [weight])
    new = ir.from_proto(proto)
    assert [tensor.name for tensor in new.graph.inputs] == ["x", "w"]
    assert [tensor.name for tensor in ir.feed_inputs(new)] == ["x"]
    assert ir.constant(ir.tensors(new)["w"]) is None, "its value may be overridden, so nothing may be computed from it"
    assert ir.to_proto(new.copy()).graph.input == proto.graph.input
    ir.freeze_initializers(new)
    assert [tensor.name for tensor in new.graph.inputs] == ["x"]
    assert ir.constant(ir.tensors(new)["w"]) is not None


def test_captured_and_unused_initializers_stay(make_model, vector, assert_same):
    weights = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("inner", "both", "unused")]
    then = helper.make_graph([helper.make_node("Add", ["x", "inner"], ["t"])], "then", [], [vector("t")])
    other = helper.make_graph([helper.make_node("Mul", ["r", "both"], ["e"])], "else", [], [vector("e")])
    nodes = [
        helper.make_node("Sub", ["x", "both"], ["r"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    proto = make_model(nodes, [vector("x"), flag], [vector("y")], weights)
    model = ir.from_proto(proto)
    assert ir.captured(model) == {"x", "inner", "r", "both"}
    assert set(model.loose) == {"inner", "both", "unused"}
    assert_same(proto, ir.to_proto(model))
    model.graph.nodes[0].inputs.clear()
    assert "both" in ir.initializers(model), "a subgraph still reads it"


def test_changed_types_are_written_and_denotations_kept(make_model):
    model = ir.from_proto(full_featured(make_model))
    tensor = ir.tensors(model)["x"]
    tensor.shape = [2, 3, 0]
    info = ir.to_proto(model).graph.input[0]
    assert [dim.dim_value for dim in info.type.tensor_type.shape.dim] == [2, 3, 0]
    assert info.type.tensor_type.shape.dim[0].denotation == "DATA_BATCH"
    ir.tensors(model)["t"].shape = None
    assert "t" not in {info.name for info in ir.to_proto(model).graph.value_info}
