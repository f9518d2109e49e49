"""A backward graph under construction: nodes of one fixed opset that read tensors of the forward model by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxprune import ir
from onnxprune.stats.arrays import Array

OPSET = 18
_IR_VERSION = 8

Gradients = Mapping[int, str]
Rule = Callable[["Tape", gs.Node, str], Gradients]


class NoRuleError(Exception):
    """The gradient of a node is not known, so nothing above it may be changed through it."""


def given(node: gs.Node, name: str, place: int) -> Array | None:
    """A setting that is an attribute in some opsets and the input at ``place`` in others, as one row; None where it is
    absent. Raises NoRuleError where it is computed.
    """
    if name in node.attrs:
        return np.asarray(node.attrs[name]).reshape(-1)
    if len(node.inputs) <= place or not node.inputs[place].name:
        return None
    values = ir.constant(node.inputs[place])
    if values is None:
        raise NoRuleError(f"{name} that are computed")
    return np.asarray(values).reshape(-1)


class Tape:
    """``shapes``: the concrete shape of every float tensor of the forward model that gradients may pass through;
    ``opset``: of the forward model.

    A rule names what it reads of the forward model through :meth:`value`; ``needed`` collects these names. All
    arithmetic is float32; what has no shape here is boolean.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], wanted: set[str], opset: int) -> None:
        self.opset = opset
        self._shapes, self._wanted = dict(shapes), wanted
        self.gradients: dict[str, str] = {}  # of forward tensors whose readers have all been passed
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.needed: dict[str, None] = {}

    def shape(self, tensor: gs.Tensor | str) -> tuple[int, ...]:
        """The shape of a forward tensor. Raises NoRuleError where it is not known."""
        name = tensor if isinstance(tensor, str) else str(tensor.name)
        if name not in self._shapes:
            raise NoRuleError(f"the shape of {name} is not known")
        return self._shapes[name]

    def wants(self, tensor: gs.Tensor) -> bool:
        """Whether the gradient of this input of a node leads to anything that is trained."""
        return tensor.name in self._wanted

    def value(self, tensor: gs.Tensor) -> str:
        """The forward tensor as an input of the backward graph, or as a constant where it is one that stays."""
        fixed = ir.constant(tensor)
        if fixed is not None and tensor.name not in self._wanted:
            return self.constant(np.asarray(fixed))
        self.needed[str(tensor.name)] = None
        return str(tensor.name)

    def constant(self, values: Array | float | Sequence[int]) -> str:
        """A constant of the backward graph; Python floats are float32, sequences of integers int64."""
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"backward.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Appends a node; the name of its last output."""
        place = len(self.nodes)
        names = [f"backward.{place}.{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[-1]

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.op("Reshape", name, self.constant(list(shape)), allowzero=1)

    def transpose(self, name: str, order: Sequence[int]) -> str:
        return self.op("Transpose", name, perm=[int(axis) for axis in order])

    def sum(self, name: str, axes: Sequence[int], keepdims: bool = False) -> str:
        return self.op("ReduceSum", name, self.constant(list(axes)), keepdims=int(keepdims))

    def positive(self, condition: str, name: str) -> str:
        """``name`` where ``condition`` holds, zero elsewhere."""
        return self.op("Where", condition, name, self.constant(0.0))

    def unbroadcast(self, name: str, shape: Sequence[int], to: Sequence[int]) -> str:
        """The gradient ``name`` of ``shape``, summed over what broadcasting repeated to get there from ``to``."""
        shape, to = tuple(shape), tuple(to)
        if shape == to:
            return name
        ones = (1,) * (len(shape) - len(to)) + to
        axes = [axis for axis, (big, small) in enumerate(zip(shape, ones, strict=True)) if small == 1 and big != 1]
        reduced = self.sum(name, axes, keepdims=True) if axes else name
        return self.reshape(reduced, to) if ones != to else reduced

    def model(self, inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str]) -> onnx.ModelProto:
        """The backward graph with float32 inputs of these shapes and those forward tensors that it needs."""
        shapes = self._shapes | dict(inputs)
        floats, flags = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
        graph = helper.make_graph(
            self.nodes,
            "backward",
            [
                helper.make_tensor_value_info(name, floats if name in shapes else flags, shapes.get(name))
                for name in (*inputs, *self.needed)
            ],
            [helper.make_tensor_value_info(name, floats, None) for name in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
