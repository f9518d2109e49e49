"""Half precision: inputs and outputs as they were, what cannot be halved stays, what overflows is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.pipeline import PassContext, PassManager
from onnxprune.pipeline_text import parse_pipeline
from onnxprune.stats import Feeds, model_drift
from passes.quantization import Scheme, fake_quantize_for_latency, quantize

HALF = Scheme(kind="float16")
NETWORK = """<ir_version: 8, opset_import: ["" : 17]> net (float[N, 3, 8, 8] x) => (float[N, 4] y)
    <float[4] factors = {1, 1, 2, 2}> {
    c = Conv<pads=[1, 1, 1, 1]>(x, w, b)
    r = Relu(c)
    s = Resize(r, , factors)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    y = Gemm<transB=1>(f, v)
}"""


def network(scale: float = 1.0) -> ir.Model:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(NETWORK)
    for name, shape in {"w": (6, 3, 3, 3), "b": (6,), "v": (4, 6)}.items():
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def dtypes(model: ir.Model) -> dict[str, np.dtype]:
    return {name: np.dtype(tensor.dtype) for name, tensor in ir.initializers(model).items()}


def test_everything_but_the_borders_and_what_schemas_forbid_is_in_half_precision() -> None:
    model = network()
    feeds = Feeds.synthetic(model, 16, 0)
    halved = quantize(model, feeds, HALF)
    half, single = np.dtype(np.float16), np.dtype(np.float32)
    assert dtypes(halved) == {"w": half, "b": half, "v": half, "factors": single}
    assert [node.op for node in halved.graph.nodes].count("Cast") == 2
    for old, new in zip(borders(model), borders(halved), strict=True):
        assert (old.name, old.dtype, old.shape) == (new.name, new.dtype, new.shape)
    assert 0 < max(model_drift(model, halved, feeds).values()) < 5e-3
    again = quantize(model, feeds, HALF)
    assert ir.to_proto(again).SerializeToString(deterministic=True) == ir.to_proto(halved).SerializeToString(
        deterministic=True
    )
    quick = fake_quantize_for_latency(model, HALF)
    assert [node.op for node in quick.graph.nodes] == [node.op for node in halved.graph.nodes]


def borders(model: ir.Model) -> list[ir.Variable]:
    return [*model.graph.inputs, *model.graph.outputs]


def test_no_weights_keep_to_7_bits() -> None:
    assert not Scheme(kind="float16", reduce_range=True).seven_bits
    assert not Scheme(kind="weight-only", reduce_range=True).seven_bits
    assert Scheme(kind="dynamic", reduce_range=True).seven_bits


def test_excluded_nodes_stay_in_single_precision() -> None:
    model = network()
    halved = quantize(model, Feeds.synthetic(model, 16, 0), Scheme(kind="float16", exclude=("c",)))
    found = dtypes(halved)
    assert (found["w"], found["v"]) == (np.float32, np.float16)


def test_what_is_too_large_stays_in_single_precision() -> None:
    model = network()
    weights = ir.initializers(model)
    weights["v"].values = weights["v"].values * np.float32(1e5)  # the outputs, and the weight itself
    found = dtypes(quantize(model, Feeds.synthetic(model, 16, 0), HALF))
    assert (found["w"], found["v"]) == (np.float16, np.float32)


def test_activations_that_grow_too_large_are_seen_on_samples() -> None:
    model = network(200.0)  # weights that half precision holds, and products of them that it does not
    halved = quantize(model, Feeds.synthetic(model, 16, 0), HALF)
    assert (dtypes(halved)["w"], dtypes(halved)["v"]) == (np.float16, np.float32)
    assert dtypes(fake_quantize_for_latency(model, HALF))["v"] == np.float16


def test_numbers_that_mask_come_near() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x, bool[N, 4] keep) => (float[N, 4] y)
        <float far = {-3.4e38}> {
            masked = Where(keep, x, far)
            y = Softmax(masked)
        }""")
    model = ir.from_proto(proto)
    feeds = Feeds.from_arrays({"x": np.eye(4, dtype=np.float32), "keep": np.array([[1, 1, 0, 0]] * 4, bool)}, model)
    halved = quantize(model, feeds, HALF)
    assert {node.op for node in halved.graph.nodes} == {"Cast", "Where", "Softmax"}
    assert ir.initializers(halved)["far"].values == np.float16(-0.375 * 65504)
    assert max(model_drift(model, halved, feeds).values()) < 1e-2


def test_the_pass_leaves_alone_what_it_cannot_convert() -> None:
    (pass_,) = parse_pipeline("to-float16")
    for given, modified in ((network(), True), (network(1e4), False)):
        context = PassContext(feeds=Feeds.synthetic(given, 16, 0))
        result, (record,) = PassManager().run(given, [pass_], context)
        assert record.modified is modified and (dtypes(result)["w"] == np.float16) is modified
        if not modified:
            assert "no node of the model can run in half precision" in record.skips[0].reason
    integers = ir.from_proto(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (int64[2] x) => (int64[2] y) { y = Neg(x) }""")
    )
    with pytest.raises(ModelError, match="no node of the model can run in half precision"):
        quantize(integers, Feeds.synthetic(integers, 2, 0), HALF)
