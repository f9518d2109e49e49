"""Brings the first part of branches to the top level, where activations can be recorded and weights fitted to them.

The spliced model computes these parts on every input, whichever branch is taken, so it stands in for the model only
while statistics are collected; what was fitted goes back by name. A part ends with the last nodes that channels of the
branch pass through: what comes behind, and may not take all inputs, stays in the branch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir import captures
from onnxprune.stats import Feeds, products, run

_BATCH = 32


def spliced(model: ir.Model, names: Collection[str]) -> ir.Model:
    """A copy in which the nodes that read or write these tensors inside branches of If, and what these nodes need, are
    at the top level. Names of tensors and keys of nodes stay.
    """
    copy = model.copy()
    wanted = set(names)
    while chosen := [node for node in copy.graph.nodes if node.op == "If" and wanted & set(_touched(node))]:
        for node in chosen:
            _splice(copy, node, wanted)
    ir.infer_shapes(copy)
    return copy


def runs(model: ir.Model, feeds: Feeds) -> bool:
    """Whether all contractions of the top level can be reached on all of these inputs."""
    outputs = [product.output for product in products(model).values()]
    try:
        for _ in run(model, feeds, outputs, batch=_BATCH):
            pass
    except ModelError:
        return False
    return True


def adopt(model: ir.Model, fitted: ir.Model) -> None:
    """Gives the weights of a spliced model, and biases that were created there, to the model that it was made of."""
    values = ir.initializers(fitted)
    nodes = {ir.node_key(node): node for node in fitted.graph.nodes}
    for graph in ir.graphs(model):
        for name, tensor in ir.initializers(graph).items():
            if name in values and values[name]._values is not tensor._values:
                tensor.values = values[name].values
        for node in graph.graph.nodes:
            twin = nodes.get(ir.node_key(node))
            if twin is not None and twin.op == node.op:
                for slot, tensor in _created(node, twin):
                    node.inputs.insert(slot, tensor)


def _created(node: ir.Node, twin: ir.Node) -> Iterator[tuple[int, ir.Constant]]:
    """Inputs that the fit has put behind those that the node has."""
    for slot, tensor in enumerate(twin.inputs[len(node.inputs) :], start=len(node.inputs)):
        yield slot, ir.Constant(tensor.name, tensor.values)


def _touched(node: ir.Node) -> Iterator[str]:
    """Names of all tensors that nodes in the subgraphs of a node read or write."""
    for body in captures.subgraphs(node):
        for item in body.graph.nodes if isinstance(body, ir.Body) else ():
            yield from (tensor.name for tensor in (*item.inputs, *item.outputs))
            yield from _touched(item)


def _splice(model: ir.Model, node: ir.Node, wanted: set[str]) -> None:
    """Puts the first parts of all branches of an If in front of it."""
    ir.bodies(model)
    outer = {tensor.name: tensor for tensor in model.all_tensors()}
    branches = [body for body in captures.subgraphs(node) if isinstance(body, ir.Body)]
    moved = [item for body in branches for item in _taken(body, wanted, outer)]
    for name in captures.of_nodes(moved):
        if isinstance(outer[name], ir.Constant):
            model.loose[name] = outer[name]
    place = next(index for index, each in enumerate(model.graph.nodes) if each is node)
    model.graph.nodes[place:place] = moved


def _taken(body: ir.Body, wanted: set[str], outer: dict[str, ir.Variable | ir.Constant]) -> list[ir.Node]:
    """Takes the first part out of a branch and returns its nodes; `outer` learns their tensors."""
    part = _part(body, wanted)
    tensors = {tensor.name: tensor for item in part for tensor in (*item.inputs, *item.outputs) if tensor.name}
    tensors |= {name: body.loose.pop(name) for name in captures.of_nodes(part) & body.loose.keys()}
    outside = {name: outer.setdefault(name, tensor) for name, tensor in tensors.items()}
    ids = set(map(id, part))
    body.graph.nodes = [item for item in body.graph.nodes if id(item) not in ids]
    twins = {tensor.name: tensor for tensor in body.graph.inputs}
    for item in part:
        for operands in (item.inputs, item.outputs):
            for slot, tensor in enumerate(operands):
                if tensor.name and outside[tensor.name] is not tensor:
                    operands[slot] = outside[tensor.name]
    for item in body.graph.nodes:
        for slot, tensor in enumerate(item.inputs):
            if tensor.name in outside:
                item.inputs[slot] = twins.setdefault(tensor.name, _twin(tensor))
    for index, tensor in enumerate(body.graph.outputs):
        if tensor.name in outside:  # a branch returns what it makes itself
            given = ir.Variable(f"{tensor.name}.given", tensor.dtype, tensor.shape)
            source = twins.setdefault(tensor.name, _twin(tensor))
            body.graph.nodes.append(ir.Node("Identity", "", {}, inputs=[source], outputs=[given]))
            body.graph.outputs[index] = given
    body.graph.inputs = list(twins.values())
    return part


def _part(body: ir.Body, wanted: set[str]) -> list[ir.Node]:
    """The nodes that touch wanted tensors, and all that they need, in graph order."""
    needed: set[str] = set()
    part: list[ir.Node] = []
    for item in reversed(body.graph.nodes):
        made = {tensor.name for tensor in item.outputs}
        read = {tensor.name for tensor in item.inputs} | captures.of_nodes([item])
        if (made | read | set(_touched(item))) & wanted or made & needed:
            needed |= read
            part.append(item)
    return part[::-1]


def _twin(tensor: ir.Variable | ir.Constant) -> ir.Variable:
    return ir.Variable(tensor.name, tensor.dtype, None if tensor.shape is None else list(tensor.shape))
