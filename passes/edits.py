"""Small edits of a graph that every pass is written in. They keep names of graph outputs and captured tensors alive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.captures import inner_names
from onnxprune.ir.objects import Constant, Node, Variable
from onnxprune.ir.stored import StoredSparse

_DENSE_BYTES = 64 << 20


class Editor:
    """Edits one model and remembers what is fixed: graph outputs, graph inputs, tensors captured by subgraphs.

    ``fixed`` holds names that must go on existing with the same value. Nodes made obsolete are swept by
    :meth:`finish`, new nodes take their place in the order.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.outputs = {tensor.name for tensor in model.graph.outputs}
        self.captured = ir.captured(model)
        self.fixed = self.outputs | self.captured
        self._overridable = {tensor.name for tensor in model.graph.inputs}
        if isinstance(model, ir.Body):  # names are unique over all graphs, so new ones are shared with the others
            model.taken |= self._own_names()
            self._names = model.taken
        self._before: dict[int, list[Node]] = {}
        self._after: dict[int, list[Node]] = {}
        self._dead: set[int] = set()

    def _own_names(self) -> set[str]:
        return {tensor.name for tensor in self.model.all_tensors()} | self.captured

    @cached_property
    def _names(self) -> set[str]:
        """The names that are taken, gathered when the first new one is asked for: most passes ask for none."""
        return self._own_names()

    @cached_property
    def _inner(self) -> set[str]:
        return set(inner_names(self.model.graph.nodes))

    def constant(self, tensor: gs.Tensor) -> np.ndarray[Any, Any] | None:
        """Return the values of ``tensor`` when no caller can override them, else None."""
        return None if tensor.name in self._overridable or _expands(tensor) else ir.constant(tensor)

    def is_constant(self, tensor: gs.Tensor) -> bool:
        """Tell whether :meth:`constant` has a value, without decoding it."""
        return isinstance(tensor, gs.Constant) and tensor.name not in self._overridable and not _expands(tensor)

    def only_use(self, tensor: gs.Tensor) -> Node | None:
        """Return the one node that reads ``tensor`` once, when nothing else needs the tensor."""
        if tensor.name in self.fixed or len(tensor.outputs) != 1:
            return None
        node: Node = tensor.outputs[0]
        return node

    def new_name(self, stem: str, *, from_subgraph: bool = False) -> str:
        """Return ``stem``, or the first free ``stem_N``: a name that neither the graph nor a subgraph uses.

        ``from_subgraph``: the name moves out of a subgraph, so that its use there does not count.
        """
        name = ir.free_name(stem, self._names, () if from_subgraph else self._inner)
        self._names.add(name)
        return name

    def new_constant(self, stem: str, values: np.ndarray[Any, Any]) -> Constant:
        """Return a new initializer with a free name made of ``stem``."""
        return Constant(self.new_name(stem), values)

    def new_variable(self, stem: str, like: gs.Tensor) -> Variable:
        """Return a new tensor of the dtype and shape of ``like``."""
        shape = None if like.shape is None else list(like.shape)
        return Variable(self.new_name(stem), like.dtype, shape)

    def insert_before(self, anchor: Node, node: Node) -> None:
        """Place ``node`` just before ``anchor``."""
        self._before.setdefault(id(anchor), []).append(node)

    def insert_after(self, anchor: Node, node: Node) -> None:
        """Place ``node`` just after ``anchor``."""
        self._after.setdefault(id(anchor), []).append(node)

    def set_input(self, node: Node, index: int, tensor: gs.Tensor) -> None:
        """Make ``tensor`` input ``index`` of ``node``, with empty optional inputs in between if needed."""
        while len(node.inputs) <= index:
            node.inputs.append(Variable(""))
        node.inputs[index] = tensor

    def redirect(self, old: gs.Tensor, new: gs.Tensor) -> None:
        """Make every node that reads ``old`` read ``new``. Graph outputs and subgraphs are not touched."""
        for node in ir.consumers(old):
            for index, tensor in enumerate(node.inputs):
                if tensor is old:
                    node.inputs[index] = new

    def remove(self, node: Node) -> None:
        """Take ``node`` out of the graph."""
        self._dead.add(id(node))
        node.inputs.clear()
        node.outputs.clear()

    def bypass(self, node: Node, source: gs.Tensor) -> bool:
        """Remove ``node``, whose first output equals ``source``; return False where that would lose a name.

        When the output's name is fixed, the producer of ``source`` takes the name over, provided that ``source`` has a
        producer and no fixed name of its own.
        """
        output = node.outputs[0]
        if any(extra.name in self.fixed or extra.outputs for extra in node.outputs[1:]):
            return False
        if output.name not in self.fixed:
            self.redirect(output, source)
            self.remove(node)
            return True
        maker = ir.producer(source)
        if maker is None or source.name in self.fixed or source.name in self._overridable:
            return False
        position = next(index for index, tensor in enumerate(maker.outputs) if tensor is source)
        self.remove(node)
        maker.outputs[position] = output
        self.redirect(source, output)
        return True

    def make_constant(self, tensor: gs.Tensor, values: np.ndarray[Any, Any]) -> None:
        """Turn ``tensor`` into an initializer; a graph output is written by an Identity of one instead."""
        node = ir.producer(tensor)
        if tensor.name in self.outputs:
            source = self.new_constant(f"{tensor.name}_value", values)
            if node is None:
                return
            replacement = Node("Identity", "", {}, [source], [])
            self.insert_before(node, replacement)
            _swap_output(node, tensor)
            replacement.outputs.append(tensor)
            for user in ir.consumers(tensor):
                for index, item in enumerate(user.inputs):
                    if item is tensor:
                        user.inputs[index] = source
        else:
            if node is not None:
                _swap_output(node, tensor)
            tensor.to_constant(values)
            if tensor.name in self.captured:
                self.model.loose[tensor.name] = tensor
        if node is not None and not any(item.name for item in node.outputs):
            self.remove(node)

    def finish(self) -> None:
        """Apply the removals and insertions to the node list."""
        if not (self._dead or self._before or self._after):
            return
        self.model.graph.nodes = [item for node in self.model.graph.nodes for item in self._around(node)]
        self._before.clear()
        self._after.clear()
        self._dead.clear()

    def _around(self, node: Node) -> Iterable[Node]:
        for item in self._before.get(id(node), ()):
            yield from self._around(item)
        if id(node) not in self._dead:
            yield node
        for item in self._after.get(id(node), ()):
            yield from self._around(item)


def _expands(tensor: gs.Tensor) -> bool:
    """Whether a sparse initializer is so large when dense that it is better left alone."""
    stored = tensor._values if isinstance(tensor, gs.Constant) else None
    return isinstance(stored, StoredSparse) and stored.nbytes > _DENSE_BYTES


def _swap_output(node: Node, tensor: gs.Tensor) -> None:
    """Give ``node`` an unnamed output in place of ``tensor``."""
    for index, item in enumerate(node.outputs):
        if item is tensor:
            node.outputs[index] = Variable("")


def is_standard(node: Node, *ops: str) -> bool:
    """Tell whether ``node`` is one of ``ops`` of the standard domain."""
    return node.op in ops and node.domain in (None, "", "ai.onnx")


def int_list(node: Node, attribute: str, position: int, editor: Editor) -> list[int] | None:
    """Return integers that older opsets keep in ``attribute`` and newer ones in input ``position``; None if unknown."""
    value = ir.attribute(node, attribute)
    if isinstance(value, (list, tuple)):
        return [int(item) for item in value]
    if len(node.inputs) > position and node.inputs[position].name:
        values = editor.constant(node.inputs[position])
        return None if values is None else [int(item) for item in values.reshape(-1)]
    return None


def ints(values: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return an int64 vector."""
    return np.asarray(list(values), dtype=np.int64)
