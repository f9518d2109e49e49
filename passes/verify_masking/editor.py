"""Writes the masked original: a copy of a ModelProto whose node list is rebuilt one node at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from passes.verify_masking.plan import Mask, Plan
from passes.verify_masking.subgraphs import all_graphs

Array = npt.NDArray[Any]
Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]  # activations: measured shape and element type


class Editor:
    """The original with its plan, plus what has been emitted so far.

    `shapes` holds the measured shapes and element types of the activations that the rules ask for.
    """

    def __init__(self, original: onnx.ModelProto, plan: Plan, shapes: Shapes) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(original)
        self.plan = plan
        self.nodes: list[onnx.NodeProto] = []
        self.opset = next((o.version for o in original.opset_import if o.domain in ("", "ai.onnx")), 1)
        self._shapes = shapes
        self._initializers = {t.name: t for t in self.model.graph.initializer}
        self._names = tensor_names(original)
        self._counts: dict[str, int] = {}
        self._gates: dict[tuple[object, ...], str] = {}
        self._current: dict[str, str] = {}
        self._origin: dict[str, str] = {}

    def alias(self, name: str, new: str) -> None:
        """From here on, consumers of `name` read `new`, which has the same shape and plan."""
        self._current[name] = new
        self._origin[new] = name

    def current(self, name: str) -> str:
        """What a consumer of `name` reads."""
        return self._current.get(name, name)

    def replace(self, values: Mapping[str, Array]) -> None:
        """Gives initializers other values of the same shape."""
        for name, array in values.items():
            self._initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

    def value(self, name: str) -> Array | None:
        """The values of an initializer, None for anything else."""
        tensor = self._initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of an initializer or of a measured activation."""
        name = self._origin.get(name, name)
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        return self._shapes[name][0] if name in self._shapes else None

    def rank(self, name: str) -> int:
        """The number of axes, 0 where the shape is unknown."""
        return len(self.shape(name) or ())

    def dtype(self, *names: str) -> np.dtype[Any]:
        """The element type of the first of these tensors for which it is known, float32 otherwise."""
        for name in (self._origin.get(n, n) for n in names):
            if name in self._initializers:
                return np.dtype(helper.tensor_dtype_to_np_dtype(self._initializers[name].data_type))
            if name in self._shapes:
                return self._shapes[name][1]
        return np.dtype(np.float32)

    def keep(self, name: str, axis: int) -> Mask | None:
        """Kept elements of an axis (negative axes count from the end), None when all stay or the tensor is unknown."""
        shape = self.shape(name)
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        return self.plan.keep(self._origin.get(name, name), axis % len(shape), shape[axis])

    def fresh(self, stem: str) -> str:
        """A tensor name that the model does not use."""
        while True:
            count = self._counts.get(stem, 0)
            self._counts[stem] = count + 1
            name = f"{stem}/masked{count or ''}"
            if name not in self._names:
                self._names.add(name)
                return name

    def constant(self, values: Array, stem: str = "oracle") -> str:
        """Adds an initializer and returns its name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), self.fresh(stem))
        self.model.graph.initializer.append(tensor)
        self._initializers[tensor.name] = tensor
        return tensor.name

    def emit(self, op: str, inputs: Sequence[str], output: str | None = None, **attrs: Any) -> str:
        """Appends a node with one output and returns the output's name."""
        name = output or self.fresh(inputs[0])
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attrs))
        return name

    def select(self, x: str, axis: int, keep: Mask, fill: float = 0.0, like: Sequence[str] = (), zero: str = "") -> str:
        """`x` where kept, `fill` where removed, whatever the removed elements hold (0 * Inf would be NaN).

        A negative axis counts from the end, which needs no rank; `like` names tensors of x's element type; `zero` names
        a tensor that broadcasts against x and takes the place of `fill`.
        """
        key = (x, axis, fill, keep.tobytes(), zero)
        if key not in self._gates:
            dtype = self.dtype(x, *like)
            shaped = keep.reshape((-1, *(1,) * ((-axis if axis < 0 else self.rank(x) - axis) - 1)))
            if self.opset >= 9:
                inputs = [self.constant(shaped), x, zero or self.constant(np.asarray(fill, dtype))]
                self._gates[key] = self.emit("Where", inputs, self.fresh(x))
            else:
                product = self.emit("Mul", [x, self.constant(shaped.astype(dtype))])
                finite = np.clip(fill, -3e38, 3e38)
                rest = np.where(shaped, 0.0, finite).astype(dtype)
                self._gates[key] = product if fill == 0.0 else self.emit("Add", [product, self.constant(rest)])
        return self._gates[key]

    def reduce_mean(self, x: str, axes: Sequence[int]) -> str:
        """ReduceMean with kept dimensions, in the form that the model's opset wants."""
        if self.opset >= 18:
            return self.emit("ReduceMean", [x, self.constant(np.asarray(axes, np.int64))], keepdims=1)
        return self.emit("ReduceMean", [x], axes=list(axes), keepdims=1)

    def enter(self) -> tuple[list[onnx.NodeProto], dict[tuple[object, ...], str]]:
        """Starts the node list of a subgraph, which sees nothing that another subgraph emits; `leave` takes it back."""
        outer = self.nodes, self._gates
        self.nodes, self._gates = [], dict(self._gates)
        return outer

    def leave(self, outer: tuple[list[onnx.NodeProto], dict[tuple[object, ...], str]]) -> list[onnx.NodeProto]:
        """Ends the subgraph that `enter` started and returns its nodes."""
        nodes = self.nodes
        self.nodes, self._gates = outer
        return nodes

    def finish(self) -> onnx.ModelProto:
        """Puts the emitted nodes in the place of the old ones and forgets shape annotations."""
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        del self.model.graph.value_info[:]
        return self.model


def tensor_names(model: onnx.ModelProto) -> set[str]:
    """Every name that a tensor of the model carries, inside subgraphs too."""
    names: set[str] = set()
    for graph in all_graphs(model.graph):
        names.update(t.name for t in (*graph.initializer, *graph.input, *graph.output))
        for node in graph.node:
            names.update((*node.input, *node.output))
    return names
