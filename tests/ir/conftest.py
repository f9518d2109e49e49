"""Fixtures of the ir tests: an oracle for round trips that looks at every field by reflection, and small models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

_BY_NAME = {"initializer": "name", "value_info": "name"}


def canonical(message: Any) -> Any:
    """A protobuf message as nested tuples; empty strings count as absent, initializers and value_info have no order."""
    fields = []
    for field, value in message.ListFields():
        if field.is_repeated and field.message_type is not None:
            items = [canonical(item) for item in value]
            fields.append((field.name, tuple(sorted(items, key=repr)) if field.name in _BY_NAME else tuple(items)))
        elif field.is_repeated:
            fields.append((field.name, repr(list(value))))
        elif field.message_type is not None:
            fields.append((field.name, canonical(value)))
        elif value not in ("", b"") or field.name in ("s", "raw_data"):
            fields.append((field.name, repr(value)))
    return tuple(fields)


@pytest.fixture
def assert_same() -> Callable[[onnx.ModelProto, onnx.ModelProto], None]:
    """Asserts that two protos carry the same information in every field."""

    def check(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
        left, right = dict(canonical(one)), dict(canonical(other))
        assert left.keys() == right.keys()
        for name in left.keys() - {"graph"}:
            assert left[name] == right[name], name
        left, right = dict(left["graph"]), dict(right["graph"])
        assert left.keys() == right.keys()
        for name in left:
            assert left[name] == right[name], name

    return check


@pytest.fixture
def make_model() -> Callable[..., onnx.ModelProto]:
    """make_model(nodes, inputs, outputs, initializers=(), opset=21, ir=10, **graph): a ModelProto."""

    def make(
        nodes: list[onnx.NodeProto],
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        initializers: Any = (),
        opset: int = 21,
        ir: int = 10,
        domains: tuple[str, ...] = (),
        functions: Any = (),
        **graph: Any,
    ) -> onnx.ModelProto:
        body = helper.make_graph(nodes, "g", inputs, outputs, list(initializers), **graph)
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        proto = helper.make_model(body, opset_imports=opsets, functions=list(functions))
        proto.ir_version = ir
        return proto

    return make


@pytest.fixture
def vector() -> Callable[..., onnx.ValueInfoProto]:
    """vector(name, size=4): a float tensor of rank 1."""
    return lambda name, size=4: helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])


@pytest.fixture
def small_cnn(make_model: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """Conv, Relu, global pool, Flatten, Gemm on (batch, 3, 8, 8), with a symbolic batch."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)

    return make_model(
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
            helper.make_node("GlobalAveragePool", ["r1"], ["p1"], name="pool"),
            helper.make_node("Flatten", ["p1"], ["f1"], name="flatten"),
            helper.make_node("Gemm", ["f1", "w2", "b2"], ["y"], name="fc", transB=1),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 5, 8), weight("b2", 5)],
        opset=17,
        ir=8,
    )
