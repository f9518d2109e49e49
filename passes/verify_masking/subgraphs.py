"""What the oracle does about subgraphs: where their tensors live, how large these are, and which branch runs.

Bodies see outer names, so their initializers are lifted to the top level first: weights of a body are then read,
replaced and disturbed like all others. Activations of a body cannot be fetched; their sizes come from onnx's own shape
inference. Of an If only one branch runs on given inputs, so a branch that lost something is also run by force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from passes.verify_masking.plan import Plan

Conditions = Mapping[str, bool]  # the first output of an If -> the value that its condition is forced to
_UNKNOWN = 0


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node carries as attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs nested in it."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from all_graphs(inner)


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a model and of its subgraphs."""
    for graph in all_graphs(model.graph):
        yield from graph.node


def lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the initializers of its subgraphs at the top level; the model itself where there are none.

    One stays where it is if its name means something else elsewhere, or if the subgraph returns it.
    """
    inner = [graph for graph in all_graphs(model.graph) if graph is not model.graph]
    if not any(len(graph.initializer) for graph in inner):
        return model
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    names = [name for graph in all_graphs(twin.graph) for name in _defined(graph)]
    once = {name for name, count in zip(*np.unique(names, return_counts=True), strict=True) if count == 1}
    for graph in list(all_graphs(twin.graph))[1:]:
        fixed = {info.name for info in (*graph.output, *graph.input)}
        moved = [tensor for tensor in graph.initializer if tensor.name in once - fixed]
        kept = [tensor for tensor in graph.initializer if tensor.name not in once - fixed]
        twin.graph.initializer.extend(moved)
        rest = onnx.GraphProto(initializer=kept)
        del graph.initializer[:]
        graph.initializer.extend(rest.initializer)
    return twin


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (each.name for each in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from filter(None, node.output)


def inner_shapes(model: onnx.ModelProto, names: set[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and element type of tensors inside subgraphs, 0 for a size that is not static; unknown ranks are left out.

    By onnx's inference from inputs and weights alone; what it does not know is taken from the model's own annotations.
    """
    found = {name: described for name, described in _annotations(model).items() if name in names}
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for graph in all_graphs(bare.graph):
        del graph.value_info[:]
    try:
        inferred = _annotations(onnx.shape_inference.infer_shapes(bare))
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return found
    for name in names & inferred.keys():
        sizes, dtype = inferred[name]
        recorded = found.get(name, inferred[name])[0]
        if len(recorded) == len(sizes):
            sizes = tuple(size or old for size, old in zip(sizes, recorded, strict=True))
        found[name] = sizes, dtype
    return found


def _annotations(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    found = {}
    for graph in list(all_graphs(model.graph))[1:]:
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            if tensor.elem_type and tensor.HasField("shape"):
                sizes = tuple(dim.dim_value if dim.HasField("dim_value") else _UNKNOWN for dim in tensor.shape.dim)
                found[info.name] = sizes, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return found


def paths(model: onnx.ModelProto, plan: Plan) -> list[Conditions]:
    """For every branch that holds tensors which lose slices: the conditions that make an If, and those around it,
    take it.
    """
    found: list[Conditions] = []
    _walk(model.graph, {}, plan.tensors(), found)
    return found


def _walk(graph: onnx.GraphProto, taken: Conditions, names: set[str], found: list[Conditions]) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type != AttributeProto.GRAPH:
                continue
            way = dict(taken)
            if node.op_type == "If":
                way[node.output[0]] = attribute.name == "then_branch"
            mine = {name for inner in attribute.g.node for name in (*inner.input, *inner.output)}
            if mine & names and way and way not in found:
                found.append(way)
            _walk(attribute.g, way, names, found)


def forced(model: onnx.ModelProto, conditions: Conditions) -> onnx.ModelProto:
    """A model in which these Ifs take the branch that `conditions` says."""
    if not conditions:
        return model
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for node in all_nodes(twin):
        if node.op_type == "If" and node.output[0] in conditions:
            value = conditions[node.output[0]]
            node.input[0] = f"oracle/{value}"
    for value in sorted(set(conditions.values())):
        twin.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"oracle/{value}"))
    return twin
