"""Writes the relaxed form node by node: levels as real numbers, to and from what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError

# the least and the greatest level of every quantized element type
LEVELS: dict[int, tuple[float, float]] = {
    TensorProto.UINT8: (0.0, 255.0),
    TensorProto.INT8: (-128.0, 127.0),
    TensorProto.UINT16: (0.0, 65535.0),
    TensorProto.INT16: (-32768.0, 32767.0),
    TensorProto.UINT4: (0.0, 15.0),
    TensorProto.INT4: (-8.0, 7.0),
}
for _name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"):
    _limits: Any = ml_dtypes.finfo(helper.tensor_dtype_to_np_dtype(getattr(TensorProto, _name)))  # type: ignore[no-untyped-call]
    LEVELS[getattr(TensorProto, _name)] = (float(_limits.min), float(_limits.max))


class Writer:
    """A copy of a model whose nodes are rewritten one at a time.

    `origin` says which tensor of the given model a new tensor holds, `renamed` what consumers of a tensor read instead.
    New names are made from the key of the node at hand, so that two models that share a node share them.
    """

    def __init__(self, given: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(given)
        self.nodes: list[onnx.NodeProto] = []
        self.origin: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self.opset = next((o.version for o in given.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.types = {t.name: t.data_type for t in given.graph.initializer}
        self._shapes = {t.name: tuple(t.dims) for t in given.graph.initializer}
        self._ranks = _ranks(given)
        self._levels: set[str] = set()  # tensors that are known to hold levels as float32
        self.node = onnx.NodeProto()
        self._count = 0

    def at(self, node: onnx.NodeProto) -> Writer:
        """The writer, at work on the expansion of this node."""
        self.node, self._count = node, 0
        return self

    def operand(self, slot: int) -> str:
        """What is read at an input of the node, empty where it is left out."""
        return str(self.node.input[slot]) if slot < len(self.node.input) else ""

    def attributes(self, *left_out: str) -> dict[str, Any]:
        """The node's attributes, without some."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute if a.name not in left_out}

    def emit(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Appends a standard node with one output and returns its name."""
        name = output
        if not name:
            name = f"{next(o for o in self.node.output if o)}/relaxed{self._count}"
            self._count += 1
        read = [self.renamed.get(x, x) for x in inputs]
        self.nodes.append(helper.make_node(op, read, [name], **attributes))
        return name

    def constant(self, values: np.ndarray[Any, Any]) -> str:
        """A new initializer."""
        name = f"{next(o for o in self.node.output if o)}/constant{self._count}"
        self._count += 1
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def number(self, value: float) -> str:
        """A new initializer of one element."""
        return self.constant(np.array([value], np.float32))

    def rank(self, name: str) -> int:
        """The rank of a tensor of the given model. Raises ModelError where it is not known."""
        if name not in self._ranks:
            raise ModelError(f"the rank of {name} is not known")
        return self._ranks[name]

    def single(self, parameter: str) -> bool:
        """Whether a scale or zero point is one number; computed ones are."""
        return self._shapes.get(parameter, ()) in ((), (1,))

    def along(self, parameter: str, trailing: int) -> str:
        """A vector of scales or zero points, shaped for an axis with `trailing` axes behind it."""
        if not trailing or self.single(parameter):
            return parameter
        shape = self.constant(np.array([-1, *(1,) * trailing], np.int64))
        return self.emit("Reshape", [parameter, shape])

    def real(self, slot: int, scale: int, zero: int, trailing: int = 0, *, output: str = "") -> str:
        """What the quantized operand in `slot` stands for: (level - zero point) * scale."""
        return self.dequantize(self.operand(slot), self.operand(scale), self.operand(zero), trailing, output=output)

    def dequantize(self, x: str, scale: str, zero: str, trailing: int = 0, *, output: str = "") -> str:
        """(x - zero) * scale; the output holds the elements of `x`."""
        y = self._real(x)
        if zero:
            y = self.emit("Sub", [y, self.along(self._real(zero), trailing)])
        y = self.emit("Mul", [y, self.along(scale, trailing)], output)
        self.origin[y] = x
        return y

    def _real(self, x: str) -> str:
        """The levels as float32, which most of them are already."""
        known = self.types.get(x) in LEVELS or x in self._levels
        return x if known else self.emit("Cast", [x], to=TensorProto.FLOAT)

    def quantize(self, x: str, scale: str, zero: str, output: str, trailing: int = 0, kind: int = 0) -> str:
        """clip(x / scale + zero, low, high), with the limits of the zero point's element type, or of `kind`."""
        low, high = LEVELS[self.types.get(zero) or kind or TensorProto.UINT8]
        y = self.emit("Div", [x, self.along(scale, trailing)])
        if zero:
            y = self.emit("Add", [y, self.along(zero, trailing)])
        y = self.emit("Max", [y, self.number(low)])
        self._levels.add(output)
        return self.emit("Min", [y, self.number(high)], output)

    def finish(self) -> onnx.ModelProto:
        """The relaxed model."""
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        del self.model.graph.value_info[:]
        return self.model


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """As far as the model or ONNX shape inference knows them."""
    try:
        known = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        known = model
    graph = known.graph
    ranks = {t.name: len(t.dims) for t in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            ranks[info.name] = len(info.type.tensor_type.shape.dim)
    return ranks
