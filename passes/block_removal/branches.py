"""Residual branches that can leave: everything that only one operand of a sum needs, when the other operand can
stand for the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import products
from passes.block_removal.sums import is_sum, normalize_alone, redirect, sum_of

_IDEMPOTENT = frozenset({"Relu", "Clip", "Identity"})


@dataclass(frozen=True)
class Branch:
    """``add``: key of the node that sums (see `sums.is_sum`). Dropping replaces its ``output`` by its other operand
    ``kept`` and removes the nodes ``dropped``.

    ``operand``: position of the branch in the sum. ``contractions``: the products among the dropped nodes.
    """

    name: str
    add: str
    operand: int
    kept: str
    output: str
    dropped: tuple[str, ...]
    contractions: tuple[str, ...]


def branches(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> list[Branch]:
    """Every droppable residual branch, in graph order.

    The nodes of a branch lead only to its sum, start from the other operand or an ancestor of it (and may read more: a
    mask, an encoder's output), and hold at least one contraction with a constant weight; the other operand has the
    shape of the sum. ``shapes``: concrete shapes of the tensors, for models whose own are symbolic.
    """
    weighted, captured, order = set(products(model)), ir.captured(model), _Order(model)
    opset = model.opset()
    fixed = captured | {tensor.name for tensor in model.graph.outputs}
    found = []
    for node in model.graph.nodes:
        if not is_sum(node, opset):
            continue
        options = [_branch(node, operand, weighted, fixed, order, shapes) for operand in (0, 1)]
        usable = [option for option in options if option is not None]
        total = sum_of(node)
        if usable and (total is None or total.name not in (captured if node.op == "Add" else fixed)):
            found.append(max(usable, key=lambda option: len(option.contractions)))
    return found


def _branch(
    add: gs.Node,
    operand: int,
    weighted: set[str],
    fixed: set[str],
    order: _Order,
    shapes: Mapping[str, Sequence[int]] | None,
) -> Branch | None:
    start, kept, total = add.inputs[operand], add.inputs[1 - operand], sum_of(add)
    output = add.outputs[0] if total is None else total
    if isinstance(start, gs.Constant) or isinstance(kept, gs.Constant) or not _same_shape(kept, output, shapes):
        return None
    cone = _cone(add, start, fixed | {kept.name})
    contractions = tuple(key for key in cone if key in weighted)
    if not contractions:
        return None
    made = {tensor.name for node in cone.values() for tensor in node.outputs}
    tensors = [tensor for node in cone.values() for tensor in node.inputs if tensor.name not in made]
    if not order.reaches(kept, {t.name: t for t in tensors if t.name and not isinstance(t, gs.Constant)}):
        return None
    key = ir.node_key(add)
    return Branch(output.name, key, operand, kept.name, output.name, tuple(cone), contractions)


def _same_shape(kept: gs.Tensor, output: gs.Tensor, shapes: Mapping[str, Sequence[int]] | None) -> bool:
    if shapes is not None and kept.name in shapes and output.name in shapes:
        return tuple(shapes[kept.name]) == tuple(shapes[output.name])
    if kept.shape is None or output.shape is None or None in kept.shape:
        return False
    return list(kept.shape) == list(output.shape)


def _cone(add: gs.Node, start: gs.Tensor, fixed: set[str]) -> dict[str, gs.Node]:
    """Nodes, last first, whose every output is used only inside the cone or by ``add``, and is none of ``fixed``."""
    cone: dict[int, gs.Node] = {id(add): add}
    pending = [ir.producer(start)]
    while pending:
        node = pending.pop(0)
        if node is None or id(node) in cone or ir.has_subgraph(node):
            continue
        used = {id(user) for tensor in node.outputs for user in tensor.outputs}
        if used <= cone.keys() and not any(tensor.name in fixed for tensor in node.outputs):
            cone[id(node)] = node
            pending += [ir.producer(tensor) for tensor in node.inputs if tensor.inputs]
    del cone[id(add)]
    return {ir.node_key(node): node for node in cone.values()}


class _Order:
    """Positions of the nodes, so that a search for ancestors never walks further back than it has to."""

    def __init__(self, model: ir.Model) -> None:
        self._position = {ir.node_key(node): place for place, node in enumerate(model.graph.nodes)}

    def reaches(self, tensor: gs.Tensor, wanted: Mapping[str, gs.Tensor]) -> bool:
        """Whether ``tensor`` depends on one of ``wanted`` or is one of them, or nothing is wanted."""
        first = min((self._place(goal) for goal in wanted.values()), default=0)
        seen = {tensor.name}
        pending = [(-self._place(tensor), tensor.name, tensor)]
        while pending and not wanted.keys() & seen:
            place, _, current = heappop(pending)  # the latest first: residual streams meet their branch soon
            if -place > first:
                for source in current.inputs[0].inputs:
                    if source.name and source.name not in seen:
                        seen.add(source.name)
                        heappush(pending, (-self._place(source), source.name, source))
        return not wanted or bool(wanted.keys() & seen)

    def _place(self, tensor: gs.Tensor) -> int:
        """Of the node that writes the tensor; -1 for inputs and constants."""
        node = ir.producer(tensor)
        return -1 if node is None else self._position[ir.node_key(node)]


def drop(model: ir.Model, chosen: Iterable[Branch]) -> dict[str, str]:
    """Removes the branches in place. Returns for each tensor that now stands in for a sum the name of the dense
    tensor that it stands for.

    An activation that would follow itself (Relu after Relu) is removed as well; the tensor before it then stands for
    the one after it.
    """
    picked = {branch.add: branch for branch in chosen}
    aliases: dict[str, str] = {}
    for node in list(model.graph.nodes):
        branch = picked.get(ir.node_key(node))
        if branch is None:
            continue
        kept, total = node.inputs[1 - branch.operand], sum_of(node)
        output_name = "" if total is None else total.name
        if node.op == "Add":
            _bypass(model, node, kept)
        else:
            kept = normalize_alone(model, node, kept)
        if output_name:
            aliases[kept.name] = output_name
        for user in ir.consumers(kept):
            if _repeats(kept, user):
                aliases[kept.name] = user.outputs[0].name
                _bypass(model, user, kept)
    _sweep(model, {key for branch in picked.values() for key in branch.dropped})
    return aliases


def _bypass(model: ir.Model, node: gs.Node, kept: gs.Tensor) -> None:
    """Readers of the node's output read ``kept``; a graph output becomes an Identity of it."""
    output = node.outputs[0]
    redirect(output, kept)
    place = next(index for index, other in enumerate(model.graph.nodes) if other is node)
    is_output = any(tensor is output for tensor in model.graph.outputs)
    node.inputs.clear()
    node.outputs.clear()
    if is_output:
        model.graph.nodes[place] = ir.Node("Identity", node.name, {}, inputs=[kept], outputs=[output])
    else:
        del model.graph.nodes[place]


def _repeats(kept: gs.Tensor, user: gs.Node) -> bool:
    """Whether ``user`` does to ``kept`` what has just been done to it."""
    made = ir.producer(kept)
    if made is None or made.op != user.op or user.op not in _IDEMPOTENT or made.attrs != user.attrs:
        return False
    return [id(tensor) for tensor in made.inputs[1:]] == [id(tensor) for tensor in user.inputs[1:]]


def _sweep(model: ir.Model, keys: set[str]) -> None:
    """Removes the nodes among ``keys`` that nothing reads any more, last first."""
    outputs = {tensor.name for tensor in model.graph.outputs}
    for place in range(len(model.graph.nodes) - 1, -1, -1):
        node = model.graph.nodes[place]
        if ir.node_key(node) in keys and not any(tensor.outputs or tensor.name in outputs for tensor in node.outputs):
            node.inputs.clear()
            node.outputs.clear()
            del model.graph.nodes[place]
