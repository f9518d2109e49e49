"""Large graphs are analysed in seconds: nothing loops over elements, nothing recurses over nodes, time is linear."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import channels, ir
from onnxprune.api.analysis import examine
from passes.structured_pruning.apply import prune

SECONDS = 10.0


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    """Zeros, which share no memory with anything but cost no random numbers."""
    data = np.zeros(shape, np.float32)
    return helper.make_tensor(name, TensorProto.FLOAT, shape, data.tobytes(), raw=True)


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], *shape: int | str) -> ir.Model:
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def _analyzed(model: ir.Model) -> channels.ChannelGraph:
    ir.infer_shapes(model)
    start = time.perf_counter()
    graph = channels.analyze(model)
    assert len(graph.groups) > 0
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, f"analyze took {seconds:.1f} s"
    return graph


def _chain(blocks: int) -> ir.Model:
    """Residual blocks of MatMul, Relu, MatMul, Add: four nodes each."""
    nodes, weights, last = [], [], "x"
    for k in range(blocks):
        weights += [_weight(f"a{k}", 8, 8), _weight(f"b{k}", 8, 8)]
        nodes += [
            helper.make_node("MatMul", [last, f"a{k}"], [f"h{k}"]),
            helper.make_node("Relu", [f"h{k}"], [f"r{k}"]),
            helper.make_node("MatMul", [f"r{k}", f"b{k}"], [f"m{k}"]),
            helper.make_node("Add", [last, f"m{k}"], [f"s{k}" if k < blocks - 1 else "y"]),
        ]
        last = f"s{k}"
    return _model(nodes, weights, "N", 8)


def test_chain_of_ten_thousand_nodes() -> None:
    model = _chain(2500)
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
    graph = _analyzed(_model(nodes, weights, "N", width))
    assert sum(group.width for group in graph.groups) >= 12 * 4096


def test_attention_of_8192() -> None:
    """Four blocks with 64 heads of 128 dimensions, reshaped and transposed."""
    nodes, last, width = [], "x", 4
    weights = [
        numpy_helper.from_array(np.array([0, 0, 64, 128], np.int64), "heads"),
        numpy_helper.from_array(np.array([0, 0, 8192], np.int64), "flat"),
    ]
    for k in range(4):
        for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            weights.append(_weight(f"w{part}{k}", width, 8192))
            nodes += [
                helper.make_node("MatMul", [last, f"w{part}{k}"], [f"{part}{k}"]),
                helper.make_node("Reshape", [f"{part}{k}", "heads"], [f"{part}r{k}"]),
                helper.make_node("Transpose", [f"{part}r{k}"], [f"{part}t{k}"], perm=perm),
            ]
        weights.append(_weight(f"wo{k}", 8192, width))
        nodes += [
            helper.make_node("MatMul", [f"qt{k}", f"kt{k}"], [f"s{k}"]),
            helper.make_node("Softmax", [f"s{k}"], [f"p{k}"]),
            helper.make_node("MatMul", [f"p{k}", f"vt{k}"], [f"o{k}"]),
            helper.make_node("Transpose", [f"o{k}"], [f"ot{k}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"ot{k}", "flat"], [f"of{k}"]),
            helper.make_node("MatMul", [f"of{k}", f"wo{k}"], [f"m{k}"]),
            helper.make_node("Add", [last, f"m{k}"], [f"y{k}" if k < 3 else "y"]),
        ]
        last = f"y{k}"
    graph = _analyzed(_model(nodes, weights, "N", "T", width))
    assert [group.width for group in graph.groups if group.kind == "head"] == [64] * 4


CPU_SECONDS = 2.0  # of the whole command on 2,000 nodes; the wall time must be at most that
SLOWER = 4  # how much slower than the machine that this was set on one that runs the tests may be


def test_the_command_on_two_thousand_nodes(tmp_path: Path) -> None:
    """In CPU seconds, which other work on the machine hardly changes."""
    ir.save(_chain(500), tmp_path / "chain.onnx")
    before = _children_seconds()
    command = [sys.executable, "-P", "-m", "onnxprune", "analyze", "chain.onnx", "--format", "json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(channels.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    seconds = _children_seconds() - before
    assert seconds < SLOWER * CPU_SECONDS, f"onnxprune analyze took {seconds:.1f} CPU seconds"


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_time_is_linear_in_nodes() -> None:
    """Reading, canonical form, groups, shares and reasons of four times the nodes: at most six times the time."""
    times = []
    for blocks in (250, 1000):
        proto = ir.to_proto(_chain(blocks))
        seconds = []
        for _ in range(3):
            start = time.process_time()
            found = examine(proto)
            assert len(found.graph.groups) == len(found.shares.groups) == blocks
            assert len(found.graph.frozen) == blocks
            seconds.append(time.process_time() - start)
        times.append(min(seconds))
    assert times[1] < 6 * times[0], times
