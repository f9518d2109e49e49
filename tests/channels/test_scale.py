"""Large graphs are analysed in seconds: nothing loops over elements, nothing recurses over nodes."""

from __future__ import annotations

import time

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune import channels, ir
from passes.structured_pruning.apply import prune

SECONDS = 10.0


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    """Zeros, which share no memory with anything but cost no random numbers."""
    data = np.zeros(shape, np.float32)
    return helper.make_tensor(name, TensorProto.FLOAT, shape, data.tobytes(), raw=True)


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], width: int) -> ir.Model:
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])

    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def _analyzed(model: ir.Model) -> channels.ChannelGraph:
    ir.infer_shapes(model)
    start = time.perf_counter()
    graph = channels.analyze(model)
    assert len(graph.groups) > 0
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, f"analyze took {seconds:.1f} s"
    return graph


def test_chain_of_ten_thousand_nodes() -> None:
    """Residual blocks of MatMul, Relu, MatMul, Add."""
    nodes, weights, last = [], [], "x"
    for k in range(2500):
        weights += [_weight(f"a{k}", 8, 8), _weight(f"b{k}", 8, 8)]
        nodes += [
            helper.make_node("MatMul", [last, f"a{k}"], [f"h{k}"]),
            helper.make_node("Relu", [f"h{k}"], [f"r{k}"]),
            helper.make_node("MatMul", [f"r{k}", f"b{k}"], [f"m{k}"]),
            helper.make_node("Add", [last, f"m{k}"], [f"s{k}" if k < 2499 else "y"]),
        ]
        last = f"s{k}"
    model = _model(nodes, weights, 8)
    graph = _analyzed(model)
    assert len(graph.groups) == 2500
    start = time.perf_counter()
    prune(model, graph, {group.name: np.arange(8) > 3 for group in graph.groups})
    assert time.perf_counter() - start < SECONDS


def test_hidden_size_of_8192() -> None:
    """Twelve feed-forward blocks with gates, split and joined: 8,192 units a group."""
    nodes, weights, last, width = [], [_weight("half", 4096)], "x", 4
    for k in range(12):
        weights += [_weight(f"a{k}", width, 8192), _weight(f"b{k}", 8192, width)]
        nodes += [
            helper.make_node("MatMul", [last, f"a{k}"], [f"h{k}"]),
            helper.make_node("Split", [f"h{k}"], [f"p{k}", f"q{k}"], axis=-1, num_outputs=2),
            helper.make_node("Mul", [f"p{k}", "half"], [f"g{k}"]),
            helper.make_node("Concat", [f"q{k}", f"g{k}"], [f"c{k}"], axis=-1),
            helper.make_node("MatMul", [f"c{k}", f"b{k}"], [f"m{k}"]),
            helper.make_node("Add", [last, f"m{k}"], [f"s{k}" if k < 11 else "y"]),
        ]
        last = f"s{k}"
    graph = _analyzed(_model_18(nodes, weights, width))
    assert sum(group.width for group in graph.groups) >= 12 * 4096


def _model_18(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], width: int) -> ir.Model:
    model = ir.to_proto(_model(nodes, weights, width))
    model.opset_import[0].version = 18
    return ir.from_proto(model)
