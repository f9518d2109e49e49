"""Tiny models, and workers that misbehave on purpose."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime_bench.client import Worker
from runtime_bench.target import Target


def conv_model(channels: int = 8, repeats: int = 1, size: int = 16) -> bytes:
    """`repeats` 3x3 convolutions with ReLU over [batch, channels, size, size]."""
    weight = np.random.default_rng(0).standard_normal((channels, channels, 3, 3)).astype(np.float32) * 0.1
    nodes, name = [], "x"
    for k in range(repeats):
        nodes.append(helper.make_node("Conv", [name, "w"], [f"c{k}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"]))
        name = f"r{k}"
    nodes.append(helper.make_node("Identity", [name], ["y"]))
    shape = ["batch", channels, size, size]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    return save(graph)


def save(graph: object) -> bytes:
    """Serialized, with an opset that every supported runtime knows."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a model of some ten microseconds."""
    path = tmp_path_factory.mktemp("conv") / "conv.onnx"
    path.write_bytes(conv_model())
    return path


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models, the second with exactly twice the convolutions of the first."""
    folder = tmp_path_factory.mktemp("double")
    paths = folder / "one.onnx", folder / "two.onnx"
    for path, repeats in zip(paths, (6, 12), strict=True):
        path.write_bytes(conv_model(16, repeats))
    return paths


@pytest.fixture
def cpu() -> Target:
    """One thread of the CPU."""
    return Target("cpu")


SCRIPTED = """
import ctypes, os, signal, sys, time
import runtime_bench.worker as w
def command(worker, request):
    {body}
w.COMMANDS = {{**w.COMMANDS, "odd": command}}
w.main()
"""


@pytest.fixture
def scripted() -> Callable[[str], Worker]:
    """A real worker with one more command, `odd`, whose body is given."""

    def start(body: str, timeout: float = 20.0) -> Worker:
        return Worker(Target("cpu"), timeout=timeout, command=[sys.executable, "-c", SCRIPTED.format(body=body)])

    return start


@pytest.fixture
def impostor() -> Callable[[str], Worker]:
    """A process that is no worker: the given program answers instead. Not greeted."""

    def start(program: str, timeout: float = 20.0) -> Worker:
        return Worker(Target("cpu"), timeout=timeout, command=[sys.executable, "-c", program], greet=False)

    return start


@pytest.fixture(scope="session")
def make_conv() -> Callable[..., bytes]:
    """`conv_model`."""
    return conv_model


@pytest.fixture(scope="session")
def gather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an integer input that must be a valid index into 4 rows."""
    table = numpy_helper.from_array(np.eye(4, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "gather",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [table],
    )
    path = tmp_path_factory.mktemp("gather") / "gather.onnx"
    path.write_bytes(save(graph))
    return path
