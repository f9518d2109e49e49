"""What a resize hook works with: which elements leave which axis, and new constants for the parameters it rewrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.links import AxisKey, Dim, Ints

FIRST_WHERE = 9
_NONE: Ints = np.zeros(0, np.int64)


class Cut:
    """A removal in progress in one graph: the model, or one of its subgraphs.

    Sizes and shapes that it gives are those before the removal unless it says otherwise. `names`: those in use in all
    graphs, which it adds to; the names of `model` where they are not given.
    """

    def __init__(self, model: ir.Model, removed: Mapping[AxisKey, Ints], names: set[str] | None = None) -> None:
        self._model = model
        self._removed = removed
        self._names = set(ir.tensors(model)) if names is None else names

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
        """Gives this node a constant of its own in a slot, of the old one's type: other nodes may share the old one."""
        while len(node.inputs) <= slot:
            node.inputs.append(gs.Variable.empty())
        old = node.inputs[slot]
        array = np.asarray(values, old.dtype if old.name and not isinstance(values, np.ndarray) else None)
        node.inputs[slot] = self.constant(old.name or f"{ir.node_key(node)}.{slot}", array)

    def set_ints(self, node: gs.Node, name: str, slot: int, values: Sequence[int]) -> None:
        """Rewrites a list of integers where the node has it: in its attribute, or in its input."""
        if name in node.attrs:
            node.attrs[name] = list(values)
        else:
            self.set_input(node, slot, values)

    def set_shape(self, node: gs.Node, slot: int, sizes: Mapping[int, int]) -> None:
        """Writes sizes into the entries of a shape input, for this node alone: see `editable`."""
        target = node.inputs[slot]
        values = ir.constant(target)
        pieces = _pieces(target)
        if values is not None:
            node.inputs[slot] = self.constant(target.name, _replaced(values, sizes, 0))
        elif pieces is not None and all(_in_constant(pieces, entry) for entry in sizes):
            parts = [self._rewritten(piece, sizes, start) for start, piece in pieces]
            node.inputs[slot] = self._emit("Concat", {"axis": 0}, parts, target, node)
        else:
            mask = np.zeros(target.shape[0], bool)
            mask[list(sizes)] = True
            chosen = self.constant(f"{target.name}.sizes", _replaced(np.ones(len(mask)), sizes, 0))
            inputs = [self.constant(f"{target.name}.mask", mask), chosen, target]
            node.inputs[slot] = self._emit("Where", {}, inputs, target, node)

    def _rewritten(self, piece: gs.Tensor, sizes: Mapping[int, int], start: int) -> gs.Tensor:
        if not any(start <= entry < start + piece.shape[0] for entry in sizes):
            return piece
        return self.constant(piece.name, _replaced(ir.constant(piece), sizes, start))

    def _emit(
        self, op: str, attrs: dict[str, object], inputs: list[gs.Tensor], like: gs.Tensor, before: gs.Node
    ) -> gs.Tensor:
        made = ir.Variable(self._fresh(like.name), like.dtype, like.shape)
        self._insert(ir.Node(op, "", attrs, inputs=inputs, outputs=[made]), before)
        return made

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
        name = ir.free_name(f"{stem}.cut", self._names)
        self._names.add(name)
        return name


def editable(target: gs.Tensor, entry: int, opset: int) -> bool:
    """Whether `Cut.set_shape` can write this entry: a constant, a constant piece of a Concat, or any computed vector
    of known length, whose entry a Where overrides (opset 9). A vector that comes from outside stays as it is.
    """
    if ir.constant(target) is not None:
        return True
    pieces = _pieces(target)
    if pieces is not None and _in_constant(pieces, entry):
        return True
    length = target.shape[0] if target.shape is not None and len(target.shape) == 1 else None
    return opset >= FIRST_WHERE and ir.producer(target) is not None and isinstance(length, int)


def shape_entries(target: gs.Tensor, length: int) -> list[int | None]:
    """The entries of a shape input; None where an entry is computed."""
    values = ir.constant(target)
    if values is not None:
        return [int(v) for v in np.asarray(values).reshape(-1)]
    entries: list[int | None] = []
    for _, piece in _pieces(target) or ():
        values = ir.constant(piece)
        entries += [None] * piece.shape[0] if values is None else [int(v) for v in np.asarray(values).reshape(-1)]
    return entries if len(entries) == length else [None] * length


def _pieces(target: gs.Tensor) -> list[tuple[int, gs.Tensor]] | None:
    """The inputs of the Concat that makes a shape vector, each with the entry it starts at."""
    concat = ir.producer(target)
    if concat is None or concat.op != "Concat" or ir.domain(concat):
        return None
    found, start = [], 0
    for piece in concat.inputs:
        if piece.shape is None or len(piece.shape) != 1 or not isinstance(piece.shape[0], int):
            return None
        found.append((start, piece))
        start += piece.shape[0]
    return found


def _in_constant(pieces: list[tuple[int, gs.Tensor]], entry: int) -> bool:
    return any(start <= entry < start + piece.shape[0] and ir.constant(piece) is not None for start, piece in pieces)


def _replaced(values: np.ndarray | None, sizes: Mapping[int, int], start: int) -> np.ndarray:
    assert values is not None
    result = np.array(values, np.int64).reshape(-1)
    for entry, value in sizes.items():
        if start <= entry < start + len(result):
            result[entry - start] = value
    return result
