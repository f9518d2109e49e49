"""Families that PyTorch does not export: models in the idioms of other converters, and how to write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Foreign:
    """One architecture as one converter writes it.

    build: the model and inputs for it. share, why: see `family.Family`; a share of 0 says that nothing can be pruned.
    """

    name: str
    exporter: str
    build: Callable[[], tuple[onnx.ModelProto, Feeds]]
    share: float = 0.9
    why: str = ""


class Writer:
    """Nodes and weights of a model in the making. Values are drawn from a fixed seed; operands are names."""

    def __init__(self, opset: int, *, constants: bool = False) -> None:
        """`constants`: weights are Constant nodes, as PaddlePaddle writes them, and not initializers."""
        self.opset, self.constants = opset, constants
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.count = 0

    def _name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def op(self, op: str, inputs: Sequence[str], **attrs: Any) -> str:
        """The first output of a new node."""
        name = self._name(op)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attrs))
        return name

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        """A tensor with these values."""
        name = self._name("const")
        tensor = numpy_helper.from_array(np.asarray(values, dtype), name)
        if self.constants:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        """A vector of 64-bit integers: a shape, axes, bounds."""
        return self.constant(values, np.int64)

    def weight(self, *shape: int, scale: float = 0.0) -> str:
        """Normal numbers, by default scaled to keep the size of what a convolution of this shape reads."""
        scale = scale or (1 / max(np.prod(shape[1:]), 1)) ** 0.5
        return self.constant(self.rng.standard_normal(shape) * scale)

    def positive(self, *shape: int) -> str:
        """Numbers in 0.5..1.5: scales and variances."""
        return self.constant(self.rng.uniform(0.5, 1.5, shape))

    def finish(
        self, output: str, inputs: dict[str, Sequence[int | str]], producer: str, shape: Sequence[int | str] = ()
    ) -> onnx.ModelProto:
        """The checked model with these float inputs; the shape of its output is inferred where it is not given."""
        feeds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
        known = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        results = [known if shape else onnx.ValueInfoProto(name=output)]
        graph = helper.make_graph(self.nodes, producer, feeds, results, self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)
        inferred = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(inferred, full_check=True)
        del inferred.graph.value_info[:]
        return inferred
