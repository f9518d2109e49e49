"""Subgraphs as graphs of their own: opens the bodies of If, Loop and Scan, with names that no other graph uses.

A body is opened once, in place: the node's attribute then holds a `Body`. What it computes, and the signature of the
node, stay. A subgraph that cannot be opened (a list of graphs, names that are used before they are written, sizes that
contradict each other, a model with local functions) stays the AttributeProto that it was, which nothing looks into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto

from onnxprune.errors import ModelError
from onnxprune.ir import captures, types
from onnxprune.ir.importer import from_proto
from onnxprune.ir.model import Body, Model
from onnxprune.ir.objects import Variable


def graphs(model: Model) -> list[Model]:
    """The model and all its opened subgraphs, outer ones before inner ones; captured tensors are brought up to date."""
    found: list[Model] = [model]
    for graph in found:
        found.extend(bodies(graph))
    return found


def bodies(model: Model) -> list[Body]:
    """The opened subgraphs of the model's nodes, not those nested in them."""
    closed = [(node, name) for node in model.graph.nodes for name in node.attrs if _is_closed(node.attrs[name])]
    if closed and not model.header.functions:
        taken = {tensor.name for tensor in model.all_tensors()} | set(captures.inner_names(model.graph.nodes))
        used = {tensor.name for tensor in model.all_tensors()} | _opened_names(model)
        for node, name in closed:
            node.attrs[name] = _opened(model, node.attrs[name], used, taken)
    found = [value for node in model.graph.nodes for value in node.attrs.values() if isinstance(value, Body)]
    if found:
        outer = {tensor.name: tensor for tensor in model.all_tensors()}
        for body in found:
            _update(body, outer)
            body.header.ir_version = model.header.ir_version
            del body.header.opset_import[:]
            body.header.opset_import.extend(model.header.opset_import)
    return found


def all_nodes(model: Model) -> Iterator[gs.Node]:
    """The nodes of the model and of all its opened subgraphs."""
    for graph in graphs(model):
        yield from graph.graph.nodes


def every_tensor(model: Model) -> dict[str, gs.Tensor]:
    """The tensors of the model and of all its opened subgraphs; a captured one is that of the outer graph."""
    return {tensor.name: tensor for graph in reversed(graphs(model)) for tensor in graph.all_tensors()}


def body_names(model: Model) -> set[str]:
    """Names of the tensors that are defined inside opened subgraphs."""
    return {name for body in graphs(model)[1:] if isinstance(body, Body) for name in captures.defined(body)}


def reserve_names(model: Model) -> None:
    """Lets all subgraphs share one set of taken names, so that new tensors in any of them stay unique."""
    found = graphs(model)
    taken = {tensor.name for graph in found for tensor in graph.all_tensors()}
    for body in found[1:]:
        if isinstance(body, Body):
            body.taken = taken


def _is_closed(value: object) -> bool:
    return isinstance(value, AttributeProto) and value.HasField("g") and not value.ref_attr_name


def _opened_names(model: Model) -> set[str]:
    """Names that are defined in subgraphs that are open already."""
    names: set[str] = set()
    for node in model.graph.nodes:
        for graph in captures.subgraphs(node):
            if isinstance(graph, Body):
                names |= captures.defined(graph) | _opened_names(graph)
    return names


def _opened(model: Model, attribute: AttributeProto, used: set[str], taken: set[str]) -> Body | AttributeProto:
    graph = onnx.GraphProto()
    graph.CopyFrom(attribute.g)
    if not _is_plain(graph):
        return attribute
    mine = set(used)
    if not isinstance(model, Body):  # what is nested in a body was renamed with it
        _rename(graph, {}, mine, taken | set(captures.written(graph)))
    try:
        body = _read(model, graph)
    except ModelError:
        return attribute
    used |= mine
    taken |= mine
    return body


def _is_plain(graph: onnx.GraphProto) -> bool:
    """Whether each name means one tensor wherever the graph, or one nested in it, uses it."""
    own = list(captures.own_names(graph))
    inner = [each for node in graph.node for attribute in node.attribute for each in (attribute.g, *attribute.graphs)]
    once = len(set(own)) == len(own) and not captures.of_graph(graph) & set(own)
    return once and all(map(_is_plain, inner))


def _rename(graph: onnx.GraphProto, outer: Mapping[str, str], used: set[str], taken: set[str]) -> None:
    """Gives every tensor whose name is used a new one, nested graphs included; `used` learns all names."""
    names = dict(outer)
    for name in captures.own_names(graph):
        names[name], count = name, 0
        while names[name] in used or (count and names[name] in taken):
            count += 1
            names[name] = f"{name}_{count}"
        used.add(names[name])
    for tensor in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        tensor.name = names.get(tensor.name, tensor.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names[sparse.values.name]
    for note in graph.quantization_annotation:
        note.tensor_name = names.get(note.tensor_name, note.tensor_name)
    for node in graph.node:
        for operands in (node.input, node.output):
            operands[:] = [names.get(name, name) for name in operands]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names, used, taken)


def _read(model: Model, graph: onnx.GraphProto) -> Body:
    outer = {tensor.name: tensor for tensor in model.all_tensors()}
    proto = onnx.ModelProto(ir_version=model.header.ir_version, opset_import=model.header.opset_import, graph=graph)
    captured = sorted(captures.of_graph(graph))
    formal = len(graph.input)
    if {info.name for info in graph.input} & {tensor.name for tensor in graph.initializer}:
        raise ModelError("an input of a subgraph has a default value")
    for name in captured:
        if name not in outer:
            raise ModelError(f"a subgraph reads {name!r}, which nothing produces")
        info = types.value_info(name, outer[name].dtype, None, getattr(outer[name], "info", None))
        proto.graph.input.append(onnx.ValueInfoProto(name=name) if info is None else info)
    read = from_proto(proto)
    return Body(read.graph, read.header, None, read.loose, formal=formal)


def _update(body: Body, outer: Mapping[str, gs.Tensor]) -> None:
    """Drops what the body no longer captures, and takes over the types of the rest.

    Symbolic sizes are left out: a name means the same size everywhere in one graph, not across graphs.
    """
    names = captures.of_body(body)
    kept = [tensor for tensor in body.graph.inputs[body.formal :] if tensor.name in names]
    known = {tensor.name for tensor in kept}
    kept += [Variable(name) for name in sorted(names - known)]
    for tensor in kept:
        source = outer[tensor.name]
        tensor.dtype = source.dtype
        tensor.shape = None if source.shape is None else [dim if isinstance(dim, int) else None for dim in source.shape]
    body.graph.inputs = [*body.graph.inputs[: body.formal], *kept]
