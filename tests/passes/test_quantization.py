"""Static and dynamic quantization: what runs in 8 bits, what stays float, how close the result is, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as nh
import pytest

from onnxprune import ir
from onnxprune.errors import ModelError, UsageError
from onnxprune.pipeline import PassContext, PassManager
from onnxprune.pipeline_text import parse_pipeline
from onnxprune.stats import Feeds, model_drift
from passes.quantization import (
    QuantizeDynamic,
    QuantizeStatic,
    Scheme,
    choose_exclusions,
    fake_quantize_for_latency,
    float_prefixes,
    quantizable,
    quantize,
    ranking,
    saturates,
    sensitivity,
)
from passes.quantization.ranges import Observed
from passes.quantization.reader_ranges import Reader, best
from passes.quantization.weight_only import nearest

RAW = Scheme(refine=False)


def build(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[object],
    outputs: dict[str, list[object]],
    opset: int = 17,
) -> ir.Model:
    graph = oh.make_graph(
        nodes,
        "net",
        [oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [nh.from_array(value, name) for name, value in weights.items()],
    )
    return ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=8))


def normal(seed: int, *shape: int) -> np.ndarray:
    scale = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def residual(width: int = 13, opset: int = 17, bias: bool = True) -> ir.Model:
    """conv-relu, conv + skip, relu, a strided Slice and Pad shortcut, pool, Gemm; odd widths, as after pruning."""
    nodes = [
        oh.make_node("Conv", ["x", "w0", *(["b0"] if bias else [])], ["c0"], "first", pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["c0"], ["r0"]),
        oh.make_node("Conv", ["r0", "w1", *(["b1"] if bias else [])], ["c1"], "second", pads=[1, 1, 1, 1]),
        oh.make_node("Add", ["c1", "r0"], ["a1"]),
        oh.make_node("Relu", ["a1"], ["r1"]),
        oh.make_node("Slice", ["r1", "start", "end", "axes", "steps"], ["s2"]),
        oh.make_node("Pad", ["s2", "pads"], ["p2"]),
        oh.make_node("Conv", ["r1", "w2"], ["c2"], "third", pads=[1, 1, 1, 1], strides=[2, 2]),
        oh.make_node("Add", ["c2", "p2"], ["a2"]),
        oh.make_node("Relu", ["a2"], ["r2"]),
        oh.make_node("GlobalAveragePool", ["r2"], ["g"]),
        oh.make_node("Flatten", ["g"], ["f"]),
        oh.make_node("Gemm", ["f", "w3", "b3"], ["y"], "last", transB=1),
    ]
    wide = width + 4
    weights = {
        "w0": normal(0, width, 3, 3, 3) * 2,
        "w1": normal(1, width, width, 3, 3),
        "w2": normal(2, wide, width, 3, 3),
        "w3": normal(3, 5, wide),
        "b3": normal(4, 5),
        "start": np.array([0, 0], np.int64),
        "end": np.array([2**31, 2**31], np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array([2, 2], np.int64),
        "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0], np.int64),
    }
    if bias:
        weights |= {"b0": normal(5, width) * 3, "b1": normal(6, width) * 3}
    return build(nodes, weights, ["n", 3, 8, 8], {"y": ["n", 5]}, opset)


def chain(hidden: int = 24) -> ir.Model:
    """Gemm-relu-MatMul-Add."""
    nodes = [
        oh.make_node("Gemm", ["x", "w0", "b0"], ["h"], "up"),
        oh.make_node("Relu", ["h"], ["r"]),
        oh.make_node("MatMul", ["r", "w1"], ["m"], "down"),
        oh.make_node("Add", ["m", "b1"], ["y"]),
    ]
    weights = {"w0": normal(0, 16, hidden), "b0": normal(1, hidden), "w1": normal(2, hidden, 6), "b1": normal(3, 6)}
    return build(nodes, weights, ["n", 16], {"y": ["n", 6]})


def chain_of_three() -> ir.Model:
    """Three Gemm with a Relu between each."""
    nodes, weights = [], {}
    for k in range(3):
        nodes.append(oh.make_node("Gemm", [f"r{k}" if k else "x", f"w{k}", f"b{k}"], [f"h{k}" if k < 2 else "y"]))
        nodes += [oh.make_node("Relu", [f"h{k}"], [f"r{k + 1}"])] if k < 2 else []
        weights |= {f"w{k}": normal(k, 16, 16), f"b{k}": normal(9 + k, 16)}
    return build(nodes, weights, ["n", 16], {"y": ["n", 16]})


def inputs(model: ir.Model, n: int = 48, seed: int = 9) -> Feeds:
    shape = [dim if isinstance(dim, int) else n for dim in model.graph.inputs[0].shape]
    values = np.random.default_rng(seed).standard_normal([n, *shape[1:]]).astype(np.float32) + np.float32(0.3)
    return Feeds.from_arrays({"x": values}, model)


def ops(model: ir.Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


def drift(model: ir.Model, other: ir.Model, seed: int = 77) -> float:
    return max(model_drift(model, other, inputs(model, 64, seed)).values())


def kernels(model: ir.Model, tmp_path: Path) -> list[str]:
    """Operators that ONNX Runtime executes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
    options.log_severity_level = 4
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(f"{tmp_path}/optimised.onnx").graph.node]


@pytest.mark.parametrize("width", [13, 16, 7])
def test_static_is_close_and_leaves_the_input_alone(width: int) -> None:
    model = residual(width)
    before = ir.to_proto(model).SerializeToString()
    quantized = quantize(model, inputs(model), Scheme())
    assert ir.to_proto(model).SerializeToString() == before
    assert 0.0 < drift(model, quantized) < 0.1
    weights = [tensor for tensor in ir.initializers(quantized).values() if tensor.values.dtype == np.int8]
    assert sum(tensor.values.size for tensor in weights) >= sum(normal(0, width, 3, 3, 3).shape)
    assert [t.name for t in quantized.graph.outputs] == ["y"]


def test_the_whole_residual_network_runs_in_8_bits(tmp_path: Path) -> None:
    model = residual(16)
    found = kernels(quantize(model, inputs(model), RAW), tmp_path)
    assert found.count("QLinearConv") == 3
    assert found.count("QLinearAdd") == 2
    assert {"QGemm", "Slice", "Pad"} <= set(found)
    assert found.count("QuantizeLinear") == 1  # the input; the last Gemm writes float
    assert "DequantizeLinear" not in found
    assert not {"Conv", "Relu", "Add", "Gemm"} & set(found)


def test_refinement_reduces_the_error() -> None:
    worse, better = [], []
    for width in (8, 13, 24):
        model = residual(width)
        feeds = inputs(model, 64)
        worse.append(drift(model, quantize(model, feeds, RAW)))
        better.append(drift(model, quantize(model, feeds, Scheme())))
    assert sum(better) < 0.9 * sum(worse)


def test_refinement_restores_means() -> None:
    """Coarse per-tensor 7-bit weights on inputs with a large mean shift the outputs; biases take that back."""
    model = residual(16)
    shifted = np.random.default_rng(3).standard_normal((64, 3, 8, 8)).astype(np.float32) + np.float32(2.0)
    feeds = Feeds.from_arrays({"x": shifted}, model)
    coarse = Scheme(per_channel=False, reduce_range=True)
    raw = quantize(model, feeds, Scheme(per_channel=False, reduce_range=True, refine=False))
    refined = quantize(model, feeds, coarse)

    def gap(other: ir.Model) -> float:
        from onnxprune.stats import run

        exact = np.concatenate([call["y"] for call in run(model, feeds)])
        found = np.concatenate([call["y"] for call in run(other, feeds)])
        return float(np.linalg.norm((found - exact).mean(0)))

    assert gap(refined) < 0.5 * gap(raw)


def test_excluded_nodes_keep_their_float_weights() -> None:
    model = residual()
    keys = quantizable(model)
    assert keys == ["c0", "c1", "c2", "y"]
    quantized = quantize(model, inputs(model), Scheme(exclude=("c1",)))
    twins = {node.name: node for node in quantized.graph.nodes}
    np.testing.assert_array_equal(ir.constant(twins["second"].inputs[1]), normal(1, 13, 13, 3, 3))
    assert ir.producer(twins["third"].inputs[1]).op == "DequantizeLinear"
    with pytest.raises(ModelError, match="excluded"):
        quantize(model, inputs(model), Scheme(exclude=tuple(keys)))


def test_a_weight_shared_with_a_float_node_stays_float_there() -> None:
    nodes = [
        oh.make_node("Conv", ["x", "w", "b"], ["c0"], "one", pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["c0"], ["r0"]),
        oh.make_node("Conv", ["r0", "w", "b"], ["y"], "two", pads=[1, 1, 1, 1]),
        oh.make_node("ReduceSum", ["w"], ["z"], keepdims=0),
    ]
    weights = {"w": normal(0, 6, 6, 3, 3), "b": normal(1, 6)}
    model = build(nodes, weights, ["n", 6, 5, 5], {"y": ["n", 6, 5, 5], "z": []})
    quantized = quantize(model, inputs(model), Scheme(exclude=("y",)))
    twins = {node.name: node for node in quantized.graph.nodes}
    np.testing.assert_array_equal(ir.constant(twins["two"].inputs[1]), weights["w"])
    np.testing.assert_array_equal(ir.constant(twins["two"].inputs[2]), weights["b"])
    assert model_drift(model, quantized, inputs(model))["z"] == 0.0
    assert model_drift(model, quantized, inputs(model))["y"] < 0.05
    both = quantize(model, inputs(model), Scheme())
    assert model_drift(model, both, inputs(model))["y"] < 0.05


def test_a_clip_above_zero_is_not_absorbed() -> None:
    """8-bit ranges hold zero, so saturation cannot stand in for Clip(1, 6)."""
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c0"], "one"),
        oh.make_node("Clip", ["c0", "low", "high"], ["k"]),
        oh.make_node("Conv", ["k", "w"], ["y"], "two"),
    ]
    weights = {"w": normal(0, 6, 6, 1, 1), "low": np.float32(1.0), "high": np.float32(6.0)}
    model = build(nodes, weights, ["n", 6, 5, 5], {"y": ["n", 6, 5, 5]})
    quantized = quantize(model, inputs(model), Scheme())
    assert "Clip" in ops(quantized)
    assert drift(model, quantized) < 0.12


def test_concat_inputs_share_the_scale_of_the_result() -> None:
    nodes = [
        oh.make_node("Conv", ["x", "w0"], ["a"], "a"),
        oh.make_node("Conv", ["x", "w1"], ["b"], "b"),
        oh.make_node("Concat", ["a", "b"], ["k"], axis=1),
        oh.make_node("Conv", ["k", "w2"], ["y"], "c"),
    ]
    weights = {"w0": normal(0, 4, 3, 1, 1), "w1": normal(1, 4, 3, 1, 1) * 5, "w2": normal(2, 4, 8, 1, 1)}
    model = build(nodes, weights, ["n", 3, 5, 5], {"y": ["n", 4, 5, 5]})
    quantized = quantize(model, inputs(model), RAW)
    concat = next(node for node in quantized.graph.nodes if node.op == "Concat")
    scales = [float(ir.constant(ir.producer(tensor).inputs[1])) for tensor in concat.inputs]
    assert scales[0] == scales[1] == float(ir.constant(ir.consumers(concat.outputs[0])[0].inputs[1]))


def test_an_old_opset_is_raised_and_reported() -> None:
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c"], "one", pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["c"], ["r"]),
        oh.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        oh.make_node("Conv", ["p", "w1"], ["y"], "two"),
    ]
    weights = {"w": normal(0, 8, 3, 3, 3), "w1": normal(1, 5, 8, 1, 1)}
    model = build(nodes, weights, ["n", 3, 8, 8], {"y": ["n", 5, 4, 4]}, opset=9)
    quantized = quantize(model, inputs(model), Scheme())
    assert (model.opset(), quantized.opset()) == (9, 13)
    assert drift(model, quantized) < 0.05
    result = QuantizeStatic().run(model, PassContext(feeds=inputs(model)))
    assert result.modified and result.counts["nodes"] == 2
    assert "opset raised from 9 to 13" in [skip.reason for skip in result.skips]


def test_a_fixed_batch_is_walked_call_by_call() -> None:
    model = residual()
    model.graph.inputs[0].shape = [1, 3, 8, 8]
    model.graph.outputs[0].shape = [1, 5]
    quantized = quantize(model, inputs(model, 20), Scheme())
    assert max(model_drift(model, quantized, inputs(model, 20)).values()) < 0.05


def test_the_same_call_gives_the_same_bytes() -> None:
    first, second = (ir.to_proto(quantize(residual(), inputs(residual()), Scheme())) for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


STATIC = (Scheme(), Scheme(activation="s8"), Scheme(per_channel=False))


@pytest.mark.parametrize(
    ("network", "scheme"),
    [(network, scheme) for network in (residual, chain, chain_of_three) for scheme in STATIC]
    + [(network, Scheme(kind="dynamic")) for network in (chain, chain_of_three)],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_the_latency_stand_in_has_the_same_structure(network: Callable[[], ir.Model], scheme: Scheme) -> None:
    """Nodes with their attributes, and the size and type of every constant: scales of channels too."""
    model = network()
    real = form(quantize(model, inputs(model), replace(scheme, refine=False)))  # which names what it changes
    for stand_in in (fake_quantize_for_latency(model, scheme), fake_quantize_for_latency(model, scheme, inputs(model))):
        assert form(stand_in) == real


def form(model: ir.Model) -> list[Any]:
    """All of a model but the values of its constants."""
    constants = sorted((name, str(c.dtype), tuple(c.shape)) for name, c in ir.initializers(model).items())
    nodes = [(n.op, str(sorted(n.attrs.items())), [t.name for t in (*n.inputs, *n.outputs)]) for n in model.graph.nodes]
    return [constants, nodes]


def test_dynamic_quantizes_gemm_and_matmul_only(tmp_path: Path) -> None:
    model = chain()
    assert quantizable(model, "dynamic") == ["h", "y"]
    quantized = quantize(model, inputs(model), Scheme(kind="dynamic"))
    assert ops(quantized).count("MatMulInteger") == 2
    assert kernels(quantized, tmp_path).count("DynamicQuantizeMatMul") == 2
    assert drift(model, quantized) < 0.03
    one = quantize(model, inputs(model), Scheme(kind="dynamic", exclude=("h",)))
    assert ops(one).count("MatMulInteger") == 1
    convolutions = residual()
    dynamic = quantize(convolutions, inputs(convolutions), Scheme(kind="dynamic"))
    assert ops(dynamic).count("Conv") == 3
    assert "ConvInteger" not in ops(dynamic)


def test_a_bias_of_two_axes_is_taken() -> None:
    nodes = [oh.make_node("MatMul", ["x", "w"], ["m"]), oh.make_node("Add", ["b", "m"], ["y"])]
    model = build(nodes, {"w": normal(0, 16, 6), "b": normal(1, 1, 6)}, ["n", 16], {"y": ["n", 6]})
    assert drift(model, quantize(model, inputs(model), Scheme())) < 0.04


def test_a_static_product_takes_its_bias_along_and_ends_in_float(tmp_path: Path) -> None:
    model = chain()
    quantized = quantize(model, inputs(model), Scheme())
    assert kernels(quantized, tmp_path) == ["QuantizeLinear", "QGemm", "QGemm"]
    assert drift(model, quantized) < 0.08


@pytest.mark.parametrize("calibration", ["percentile", "mse"])
@pytest.mark.parametrize("activation", ["u8", "s8"])
def test_other_ranges_and_signed_activations_work(calibration: str, activation: str) -> None:
    model = residual()
    scheme = Scheme(calibration=calibration, activation=activation)  # type: ignore[arg-type]
    assert drift(model, quantize(model, inputs(model), scheme)) < 0.12


def test_what_cannot_be_quantized_is_refused() -> None:
    nodes = [oh.make_node("Relu", ["x"], ["r"]), oh.make_node("Softmax", ["r"], ["y"])]
    model = build(nodes, {}, ["n", 4], {"y": ["n", 4]})
    for scheme in (Scheme(), Scheme(kind="dynamic")):
        with pytest.raises(ModelError):
            quantize(model, inputs(model), scheme)
    with pytest.raises(UsageError, match="choose one of"):
        Scheme(kind="qat")  # type: ignore[arg-type]
    assert quantizable(model) == []


def test_the_passes_run_under_the_manager_and_refuse_in_words() -> None:
    model = residual()
    context = PassContext(feeds=inputs(model))
    done, records = PassManager().run(model, parse_pipeline("quantize-static{exclude=c0}"), context)
    assert records[0].kept and records[0].counts["nodes"] == 3
    again = QuantizeStatic().run(done, context)
    assert not again.modified and "quantized already" in again.skips[0].reason
    strict = QuantizeStatic(max_drift=1e-9).run(residual(), context)
    assert not strict.modified and "drift" in strict.skips[0].reason
    products = chain()
    assert QuantizeDynamic().run(products, PassContext(feeds=inputs(products))).counts == {"nodes": 2}
    nothing = build([oh.make_node("Relu", ["x"], ["y"])], {}, ["n", 4], {"y": ["n", 4]})
    refused = QuantizeStatic().run(nothing, PassContext(feeds=inputs(nothing)))
    assert not refused.modified and "no node" in refused.skips[0].reason


def test_sensitivity_finds_the_fragile_node() -> None:
    """One outlier in a weight of a per-tensor scale ruins that node's other weights. It is the last node: ONNX Runtime
    quantizes float weights of convolutions between 8-bit ones by itself.
    """
    model = residual()
    weight = np.array(ir.initializers(model)["w3"].values)
    weight[0, 0] = 12.0
    ir.initializers(model)["w3"].values = weight
    feeds = inputs(model)
    scheme = Scheme(per_channel=False, refine=False)
    quantized = quantize(model, feeds, scheme)
    errors = sensitivity(model, quantized, feeds)
    assert list(errors) == ["c0", "c1", "c2", "y"]
    assert ranking(errors)[0] == "y"
    limit = 0.5 * drift(model, quantized)
    chosen = choose_exclusions(model, feeds, scheme, limit)
    assert chosen is not None and chosen.exclude == ("y",)
    assert choose_exclusions(model, feeds, scheme, 1e-9) is None


def test_float_prefixes_are_nested_and_proper() -> None:
    model = residual()
    assert float_prefixes(model) == [("c0",), ("c0", "c1"), ("c0", "c1", "c2")]


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [("x86_64", "sse avx2", True), ("x86_64", "avx2 avx512_vnni", False), ("aarch64", "neon", False)],
)
def test_only_x86_without_vnni_saturates(tmp_path: Path, machine: str, flags: str, expected: bool) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert saturates(machine, info) is expected
    assert saturates("x86_64", tmp_path / "absent") is False


def test_tensors_that_subgraphs_and_outputs_need_survive() -> None:
    """A Relu captured by a branch and a Conv that is a graph output keep their values under their names."""
    branch = [
        oh.make_graph(
            [oh.make_node(op, ["r0"], [f"{op}_out"])], op, [], [oh.make_tensor_value_info(f"{op}_out", 1, None)]
        )
        for op in ("Neg", "Abs")
    ]
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c0"], "one"),
        oh.make_node("Relu", ["c0"], ["r0"]),
        oh.make_node("Conv", ["r0", "w"], ["c1"], "two"),
        oh.make_node("Relu", ["c1"], ["r1"]),
        oh.make_node("Conv", ["r1", "w"], ["y"], "three"),
        oh.make_node("If", ["flag"], ["z"], then_branch=branch[0], else_branch=branch[1]),
    ]
    weights = {"w": normal(0, 6, 6, 1, 1) * 2, "flag": np.array(True)}
    shape: list[object] = ["n", 6, 5, 5]
    model = build(nodes, weights, shape, {"y": shape, "c1": shape, "z": shape})
    found = model_drift(model, quantize(model, inputs(model), Scheme()), inputs(model))
    assert set(found) == {"y", "c1", "z"}
    assert all(0.0 < value < 0.05 for value in found.values()), found


def test_excluded_nodes_run_in_float(tmp_path: Path) -> None:
    """ONNX Runtime would quantize float weights between DequantizeLinear and QuantizeLinear by itself."""
    model = residual(16)
    found = kernels(quantize(model, inputs(model), replace(RAW, exclude=("c1",))), tmp_path)
    assert (found.count("Conv"), found.count("QLinearConv")) == (1, 2)
    products = chain_of_three()
    found = kernels(quantize(products, inputs(products), replace(RAW, exclude=("h1",))), tmp_path)
    assert (found.count("Gemm") + found.count("FusedGemm"), found.count("QGemm")) == (1, 2)


def test_weights_alone_take_4_bits_and_rounding_is_data_aware() -> None:
    nodes = [
        oh.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
        oh.make_node("Relu", ["h"], ["r"]),
        oh.make_node("MatMul", ["r", "w1"], ["m"]),
        oh.make_node("Add", ["m", "b1"], ["y"]),
    ]
    mixing = normal(5, 40, 40)  # correlated inputs: what one weight loses, another one makes up for
    weights = {"w0": normal(0, 72, 40), "b0": normal(1, 72), "w1": normal(2, 72, 10), "b1": normal(3, 10)}
    model = build(nodes, weights, ["n", 40], {"y": ["n", 10]})
    values = (np.random.default_rng(4).standard_normal((300, 40)) @ mixing @ mixing).astype(np.float32)
    feeds = Feeds.from_arrays({"x": values}, model)
    scheme = Scheme(kind="weight-only")
    rough, careful = (quantize(model, feeds, replace(scheme, refine=refine)) for refine in (False, True))
    assert ops(careful).count("MatMulNBits") == 2
    assert quantizable(model, "weight-only") == ["h", "y"]
    errors = [max(model_drift(model, other, feeds).values()) for other in (rough, careful)]
    assert errors[1] < 0.8 * errors[0] < 0.12
    stand_in = fake_quantize_for_latency(model, scheme)
    assert ops(stand_in) == ops(careful)
    assert ops(quantize(model, feeds, replace(scheme, exclude=("h",)))).count("MatMulNBits") == 1


def test_4_bit_levels_of_short_blocks_are_the_nearest() -> None:
    matrix = normal(0, 5, 70).astype(np.float64)
    levels, scales = nearest(matrix)
    assert (levels.shape, scales.shape) == ((5, 70), (5, 3))
    assert levels.min() >= -8 and levels.max() <= 7
    steps = np.repeat(scales, 32, axis=1)[:, :70]
    inside = (levels > -8) & (levels < 7)
    assert inside.mean() > 0.8
    assert (np.abs(levels * steps - matrix) <= 0.5 * np.abs(steps) + 1e-9)[inside].all()


def test_ranges_are_judged_by_what_reads_them() -> None:
    """An outlier that no weight looks at is clipped; one that carries the output is kept."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 200, 8)).astype(np.float32)
    rows[0, :, 0] *= 30
    blind, looking = np.ones((1, 4, 8), np.float32), np.ones((1, 4, 8), np.float32)
    blind[:, :, 0] = 0.0
    seen = Observed(float(rows.min()), float(rows.max()), np.zeros(0, np.float32))
    assert best([Reader(rows, blind)], seen, symmetric=True)[1] < 0.25 * seen.high
    assert best([Reader(rows, looking)], seen, symmetric=True)[1] > 0.75 * seen.high


def test_automatic_ranges_drift_no_more_than_any_rule() -> None:
    model = residual(16)
    data = inputs(model)
    found = {
        rule: drift_on(model, quantize(model, data, replace(RAW, calibration=rule)), data)
        for rule in ("minmax", "mse", "readers", "auto")
    }
    assert found["auto"] == min(found.values())


def drift_on(model: ir.Model, other: ir.Model, feeds: Feeds) -> float:
    return max(model_drift(model, other, feeds, batch=8, threads=1).values())
