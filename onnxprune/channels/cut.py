"""What a resize hook works with: which elements leave which axis, and new constants for the parameters it rewrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.links import AxisKey, Dim, Ints

_NONE: Ints = np.zeros(0, np.int64)


class Cut:
    """A removal in progress. Sizes and shapes that it gives are those before the removal unless it says otherwise."""

    def __init__(self, model: ir.Model, removed: Mapping[AxisKey, Ints]) -> None:
        self._model = model
        self._removed = removed
        self._names = set(ir.tensors(model))

    def gone(self, tensor: gs.Tensor, axis: int) -> Ints:
        """Sorted indices that leave this axis."""
        return self._removed.get((tensor.name, axis), _NONE)

    def touches(self, tensor: gs.Tensor) -> bool:
        """Whether any axis of the tensor loses elements."""
        return tensor.shape is not None and any(
            (tensor.name, axis) in self._removed for axis in range(len(tensor.shape))
        )

    def kept(self, tensor: gs.Tensor, axis: int) -> Ints:
        """Sorted indices that stay on this axis, which has a static size."""
        return np.delete(np.arange(tensor.shape[axis], dtype=np.int64), self.gone(tensor, axis))

    def size(self, tensor: gs.Tensor, axis: int) -> Dim:
        """The size of the axis after the removal; a dynamic one stays as it is."""
        dim: Dim = tensor.shape[axis]
        return dim - len(self.gone(tensor, axis)) if isinstance(dim, int) else dim

    def constant(self, stem: str, values: np.ndarray | Sequence[int]) -> gs.Constant:
        """A new initializer with a name that the model does not use; integers become int64."""
        array = np.asarray(values, None if isinstance(values, np.ndarray) else np.int64)
        return ir.Constant(self._fresh(stem), array)

    def set_input(self, node: gs.Node, slot: int, values: np.ndarray | Sequence[int]) -> None:
        """Gives this node a constant of its own in a slot: other nodes may share the old one."""
        while len(node.inputs) <= slot:
            node.inputs.append(gs.Variable.empty())
        stem = node.inputs[slot].name or f"{ir.node_key(node)}.{slot}"
        node.inputs[slot] = self.constant(stem, values)

    def set_ints(self, node: gs.Node, name: str, slot: int, values: Sequence[int]) -> None:
        """Rewrites a list of integers where the node has it: in its attribute, or in its input."""
        if name in node.attrs:
            node.attrs[name] = list(values)
        else:
            self.set_input(node, slot, values)

    def set_shape(self, node: gs.Node, slot: int, sizes: Mapping[int, int]) -> None:
        """Writes sizes into the entries of a shape input: a constant, or a Concat of constant and computed pieces."""
        target = node.inputs[slot]
        values = ir.constant(target)
        if values is not None:
            node.inputs[slot] = self.constant(target.name, _replaced(values, sizes, 0))
            return
        concat = ir.producer(target)
        assert concat is not None  # `editable` said so when the model was analysed
        pieces, start = [], 0
        for piece in concat.inputs:
            values = ir.constant(piece)
            length = int(piece.shape[0])
            inside = any(start <= entry < start + length for entry in sizes)
            pieces.append(self.constant(piece.name, _replaced(values, sizes, start)) if inside else piece)
            start += length
        copy = ir.Variable(self._fresh(target.name), target.dtype, target.shape)
        self._insert(ir.Node("Concat", "", dict(concat.attrs), inputs=pieces, outputs=[copy]), node)
        node.inputs[slot] = copy

    def pick(self, node: gs.Node, axis: int, positions: Ints) -> None:
        """Puts a Gather in front of a node's first input that picks these positions, counted after the removal."""
        x = node.inputs[0]
        sizes = [self.size(x, a) for a in range(len(x.shape))]
        sizes[axis] = len(positions)
        picked = ir.Variable(self._fresh(x.name), x.dtype, sizes)
        inputs = [x, self.constant(f"{x.name}.picked", positions)]
        self._insert(ir.Node("Gather", "", {"axis": axis}, inputs=inputs, outputs=[picked]), node)
        node.inputs[0] = picked

    def _insert(self, node: gs.Node, before: gs.Node) -> None:
        nodes = self._model.graph.nodes
        nodes.insert(next(i for i, each in enumerate(nodes) if each is before), node)

    def _fresh(self, stem: str) -> str:
        name, count = f"{stem}.cut", 1
        while name in self._names:
            count += 1
            name = f"{stem}.cut{count}"
        self._names.add(name)
        return name


def editable(target: gs.Tensor, entry: int) -> bool:
    """Whether `Cut.set_shape` can write this entry of a shape input."""
    if ir.constant(target) is not None:
        return True
    concat = ir.producer(target)
    if concat is None or concat.op != "Concat" or ir.domain(concat):
        return False
    start = 0
    for piece in concat.inputs:
        if piece.shape is None or len(piece.shape) != 1 or not isinstance(piece.shape[0], int):
            return False
        if start <= entry < start + piece.shape[0]:
            return ir.constant(piece) is not None
        start += piece.shape[0]
    return False


def shape_entries(target: gs.Tensor, length: int) -> list[int | None]:
    """The entries of a shape input; None where an entry is computed."""
    values = ir.constant(target)
    if values is not None:
        return [int(v) for v in np.asarray(values).reshape(-1)]
    concat = ir.producer(target)
    entries: list[int | None] = []
    if concat is not None and concat.op == "Concat" and not ir.domain(concat):
        for piece in concat.inputs:
            values = ir.constant(piece)
            if values is not None:
                entries += [int(v) for v in np.asarray(values).reshape(-1)]
            elif piece.shape is not None and len(piece.shape) == 1 and isinstance(piece.shape[0], int):
                entries += [None] * piece.shape[0]
            else:
                break
    return entries if len(entries) == length else [None] * length


def _replaced(values: np.ndarray | None, sizes: Mapping[int, int], start: int) -> np.ndarray:
    assert values is not None
    result = np.array(values, np.int64).reshape(-1)
    for entry, value in sizes.items():
        if start <= entry < start + len(result):
            result[entry - start] = value
    return result
