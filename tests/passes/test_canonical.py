"""The whole canonical pipeline: on text models, and on real ones."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune import ir
from onnxprune.canonical import canonicalize, canonicalize_model
from onnxprune.errors import LimitError, ModelError, UsageError
from onnxprune.pipeline import PassContext
from onnxprune.stats import Feeds

ZOO = [
    "ad01_toycar_ae/model",
    "dtln_denoise/model_1",
    "dtln_denoise/model_2",
    "espcn_superres/model",
    "fastestdet_coco/model",
    "kws_dscnn_tiny/model",
    "magika_v3_3/model",
    "minilm_l6/model",
    "mnist_cntk/model",
    "mobilenetv1_025_128/model",
    "ppocr_cls_v2/model",
    "resnet20/model",
    "resnet20/model_dynamo",
    "resnet56/model",
    "resnet56/model_dynamo",
    "resnet8_keras/model",
    "silero_vad/model",
    "sinet_portrait/model",
    "skl_mlp_digits/model",
    "squeezenet11/model",
    "ultraface_rfb320/model",
    "unet_sed/model",
]
UNFUSED = {"dtln_denoise/model_1", "dtln_denoise/model_2", "espcn_superres/model", "fastestdet_coco/model",
           "magika_v3_3/model", "minilm_l6/model", "skl_mlp_digits/model", "squeezenet11/model",
           "unet_sed/model"}  # fmt: skip


def histogram(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def calls(zoo: Path, name: str, proto: onnx.ModelProto) -> list[dict[str, Any]]:
    """Two calls with real inputs where the zoo has some, else with noise."""
    if name.startswith("dtln"):
        rng = np.random.default_rng(0)
        shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in proto.graph.input}
        return [{key: rng.random(shape, dtype=np.float32) for key, shape in shapes.items()}]
    spec = importlib.util.spec_from_file_location("zoo_recipes", zoo / "zoo.py")
    assert spec is not None and spec.loader is not None
    recipes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipes)
    feeds = Feeds.from_arrays(recipes.feeds(name.split("/")[0], 2), ir.from_proto(proto))
    return list(feeds.calls())


def assert_close(old: Any, new: Any, exact: bool) -> None:
    if isinstance(old, list):
        assert str(old) == str(new)
        return
    old, new = np.asarray(old), np.asarray(new)
    assert old.shape == new.shape and old.dtype == new.dtype
    if exact or old.dtype.kind != "f":
        assert np.array_equal(old, new)
    else:
        assert np.abs(old - new).max() <= 1e-5 * np.abs(old).max()


@pytest.mark.zoo
@pytest.mark.parametrize("name", ZOO)
def test_zoo_models_keep_their_outputs_and_signature(zoo, name):
    pytest.importorskip("PIL")
    original = onnx.load(zoo / f"{name}.onnx")
    stored = original.SerializeToString(deterministic=True)
    result = canonicalize(original)
    assert original.SerializeToString(deterministic=True) == stored
    onnx.checker.check_model(result)
    signatures = [[(t.name, t.dtype, t.shape) for t in (*m.graph.inputs, *m.graph.outputs)]
                  for m in map(ir.from_proto, (original, result))]  # fmt: skip
    assert signatures[0] == signatures[1]
    assert [(o.domain, o.version) for o in result.opset_import] == [
        (o.domain, o.version) for o in original.opset_import
    ]
    assert [p.key for p in result.metadata_props] == [p.key for p in original.metadata_props]
    assert not {"Constant", "Identity", "Dropout", "CastLike"} & histogram(result).keys()
    old, new = session(original), session(result)
    for call in calls(zoo, name, original):
        for before, after in zip(old.run(None, call), new.run(None, call), strict=True):
            assert_close(before, after, name in UNFUSED)
    assert canonicalize(result).SerializeToString() == result.SerializeToString()


@pytest.mark.zoo
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
@pytest.mark.parametrize("keep_batchnorm", [False, True])
def test_both_exports_of_a_network_become_one(zoo, name, keep_batchnorm):
    first, second = (
        canonicalize(zoo / name / f"{kind}.onnx", keep_batchnorm=keep_batchnorm) for kind in ("model", "model_dynamo")
    )
    assert histogram(first) == histogram(second)
    allowed = {"Conv", "Relu", "Add", "Slice", "Pad", "GlobalAveragePool", "Flatten", "Gemm"}
    assert histogram(first).keys() == allowed | ({"BatchNormalization"} if keep_batchnorm else set())


@pytest.mark.zoo
def test_no_shape_arithmetic_is_left_between_the_heads_of_a_transformer(zoo):
    result = ir.from_proto(canonicalize(zoo / "minilm_l6" / "model.onnx"))
    targets = [ir.constant(node.inputs[1]) for node in result.graph.nodes if node.op == "Reshape"]
    assert all(target is not None for target in targets)
    assert sorted({tuple(target.tolist()) for target in targets if target.size == 4})[0] == (0, 0, 12, 32)
    inputs = {tensor.name for tensor in result.graph.inputs}
    assert all(node.inputs[0].name in inputs for node in result.graph.nodes if node.op == "Shape")


@pytest.mark.zoo
def test_the_pipeline_is_verified_on_real_inputs(zoo, tmp_path):
    model = ir.load(zoo / "resnet20" / "model_dynamo.onnx")
    feeds = Feeds.from_arrays({"input": np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)}, model)
    result, records = canonicalize_model(model, PassContext(feeds=feeds, work_dir=tmp_path))
    assert all(record.kept and not record.error for record in records)
    assert not list(tmp_path.iterdir())
    assert len(result.graph.nodes) < len(model.graph.nodes) / 3


def test_the_public_name_is_the_same_function():
    assert onnxprune.canonicalize is canonicalize


def test_metadata_docs_and_versions_stay():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1], producer_name: "maker", doc_string: "text">
        agraph (float[N] x) => (float[N] y) { a = Identity(x) b = Relu(a) y = Identity(b) }"""
    )
    proto.metadata_props.add(key="owner", value="me")
    result = canonicalize(proto)
    assert [node.op_type for node in result.graph.node] == ["Relu"]
    proto.graph.ClearField("node")
    result.graph.ClearField("node")
    result.graph.ClearField("value_info")
    assert result == proto


def test_a_dynamic_dimension_keeps_its_name_in_the_signature():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[batch,2] x) => (float[rows,columns] y) { s = Shape(x) y = Reshape(x, s) }"""
    )
    result = canonicalize(proto)
    dims = [dim.dim_param for dim in result.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["rows", "columns"]
    assert [list(node.input)[:1] for node in result.graph.node] == [["x"]]


def test_constants_behind_known_conditions_and_sizes_are_found():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,3] x) => (float[N,3] y) <int64 three = {3}, int64 one = {1}> {
            s = Shape(x)
            c = Gather(s, one)
            same = Equal(c, three)
            y = If (same) <then_branch = t () => (float[N,3] a) { a = Relu(x) },
                           else_branch = e () => (float[N,3] b) { b = Neg(x) }>
        }"""
    )
    assert [node.op_type for node in canonicalize(proto).graph.node] == ["Relu"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_every_opset_has_its_spelling(opset):
    axes = "axes = [2]" if opset < 13 else ""
    axes_input = "" if opset < 13 else ", two"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        agraph (float[N,2,4,4] x) => (float[N,2] y) <int64[1] two = {{2}}, int64[2] rest = {{-1, 2}}> {{
            a = AveragePool <kernel_shape = [4, 4]> (x)
            b = Squeeze <{axes}> (a{axes_input})
            c = Dropout(b)
            d = Identity(c)
            y = Reshape(d, rest)
        }}""".replace("<>", "")
    )
    result = canonicalize(proto)
    assert [node.op_type for node in result.graph.node] == ["GlobalAveragePool", "Flatten"]
    x = np.random.default_rng(0).random((3, 2, 4, 4), dtype=np.float32)
    for before, after in zip(session(proto).run(None, {"x": x}), session(result).run(None, {"x": x}), strict=True):
        assert_close(before, after, False)


def test_what_cannot_be_canonicalised_says_so(tmp_path):
    with pytest.raises(UsageError, match="no such"):
        canonicalize(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not valid"):
        canonicalize(
            onnx.parser.parse_model(
                '<ir_version: 8, opset_import: ["" : 17]> agraph (float[2] x) => (float[2] y) { y = NoSuchOp(x) }'
            )
        )
    levels = "".join(
        f'<domain: "o", opset_import: ["" : 17, "o" : 1]> F{k} (v) => (r) {{ t = o.F{k + 1}(v) r = o.F{k + 1}(t) }}'
        for k in range(30)
    )
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17, "o" : 1]> agraph (float[2] x) => (float[2] y) { y = o.F0(x) }'
        + levels
        + '<domain: "o", opset_import: ["" : 17]> F30 (v) => (r) { r = Relu(v) }'
    )
    with pytest.raises(LimitError):
        canonicalize(proto)


@pytest.mark.parametrize(("last", "walks"), [("y = Relu (i)", 1), ("s = Shape (i)  y = Reshape (i, s)", 3)])
def test_sizes_are_followed_only_where_something_asks_for_them(
    last: str, walks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from passes.symbolic import analysis

    found: list[ir.Model] = []
    walk = analysis._analyze
    monkeypatch.setattr(analysis, "_analyze", lambda model: (found.append(model), walk(model))[1])
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y) {{
            c = Conv (x, w)  n = BatchNormalization (c, a, a, a, a)  i = Identity (n)  {last}
        }}"""
    )
    for name, shape in (("w", (4, 4, 1, 1)), ("a", (4,))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    assert len(canonicalize(model).graph.node) <= 2
    assert len(found) == walks
