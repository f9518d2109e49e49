"""Types of tensors behind operators that have no ONNX shape inference, by a table of functions.

ONNX inference stops at such an operator, and with it everything behind. So the graph is inferred in stages: a stage
ends at the operators of the table, whose outputs the table types, and the next stage starts from those. Each node is in
one stage, so the work stays linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx
import onnx_graphsurgeon as gs

from onnxprune.ir import captures, types
from onnxprune.ir.checker import RUNTIME_OPS, runtime_op
from onnxprune.ir.contrib_shapes import CONTRIB_SHAPES
from onnxprune.ir.loop_shapes import loop_types
from onnxprune.ir.ml_shapes import ML_SHAPES, alike
from onnxprune.ir.model import Body
from onnxprune.ir.quantized_shapes import QUANTIZED_SHAPES
from onnxprune.ir.query import domain
from onnxprune.ir.types import ShapeFunction, TensorType

# (domain, op type) -> function of the node and its inputs' types (None: unknown) to the types of its outputs
EXTRA_SHAPES: dict[tuple[str, str], ShapeFunction] = {
    ("", "GroupNormalization"): alike,  # of opset 18
    ("", "Loop"): loop_types,
    **ML_SHAPES,
    **QUANTIZED_SHAPES,
    **CONTRIB_SHAPES,
}

Infer = Callable[[onnx.ModelProto], onnx.ModelProto]


def infer(proto: onnx.ModelProto, nodes: Sequence[gs.Node], standard: Infer) -> dict[str, onnx.ValueInfoProto]:
    """The types of all tensors that can be inferred, by name; those of opened subgraphs too, by ONNX alone.

    `proto` holds `nodes` in the same order; `standard` infers a model by ONNX's own functions.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    functions = [_function(node, opset) for node in nodes]
    if not any(functions):
        return _infos(standard(proto).graph, nodes)
    known = {info.name: info for info in proto.graph.input}
    source = _Source(proto)
    for stage in _stages(nodes, functions):
        known.update(_infos(standard(source.part(stage, known)).graph, [nodes[place] for place in stage]))
        for place in stage:
            function = functions[place]
            if function is not None:
                _apply(function, nodes[place], known)
    return known


def _function(node: gs.Node, opset: int) -> ShapeFunction | None:
    """The table's function, but not for what ONNX has at this opset and ONNX Runtime had before."""
    if not domain(node) and node.op in RUNTIME_OPS and not runtime_op(node.op, opset):
        return None
    return EXTRA_SHAPES.get((domain(node), node.op))


def _infos(graph: onnx.GraphProto, nodes: Sequence[gs.Node]) -> dict[str, onnx.ValueInfoProto]:
    """What inference wrote into a graph of these nodes, and into their opened subgraphs: no name is in two of them."""
    found = {info.name: info for info in (*graph.value_info, *graph.output)}
    for node, twin in zip(nodes, graph.node, strict=True):
        inner = {attribute.name: attribute.g for attribute in twin.attribute}
        for name, value in node.attrs.items():
            if isinstance(value, Body):  # its own inputs too: those of Scan need not have a type
                found.update((info.name, info) for info in inner[name].input)
                found.update(_infos(inner[name], value.graph.nodes))
    return found


def _stages(nodes: Sequence[gs.Node], functions: Sequence[ShapeFunction | None]) -> list[list[int]]:
    """Node numbers by the greatest number of table operators on a way to the node."""
    level: dict[str, int] = {}
    stages: list[list[int]] = []
    for place, node in enumerate(nodes):
        names = {tensor.name for tensor in node.inputs} | captures.of_nodes([node])
        own = max((level.get(name, 0) for name in names), default=0)
        while len(stages) <= own:
            stages.append([])
        stages[own].append(place)
        level.update((tensor.name, own + (functions[place] is not None)) for tensor in node.outputs)
    return stages


def _apply(function: ShapeFunction, node: gs.Node, known: dict[str, onnx.ValueInfoProto]) -> None:
    """Types the node's outputs, as far as ONNX has not done so."""
    inputs = [_type(known.get(tensor.name), tensor) for tensor in node.inputs]
    if not inputs:
        return
    for tensor, found in zip(node.outputs, function(node, inputs), strict=False):
        old = known.get(tensor.name)
        if tensor.name and found is not None and (old is None or types.tensor_type(old)[1] is None):
            info = types.value_info(tensor.name, found.dtype, found.shape, None)
            if info is not None:
                known[tensor.name] = info


def _type(info: onnx.ValueInfoProto | None, tensor: gs.Tensor) -> TensorType | None:
    if isinstance(tensor, gs.Constant):
        return TensorType(tensor.dtype, list(tensor.shape))
    dtype, shape = (None, None) if info is None else types.tensor_type(info)
    return None if dtype is None or shape is None else TensorType(dtype, shape)


class _Source:
    """The whole model, from which stages are taken as models of their own."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = proto
        self._weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in proto.graph.sparse_initializer}
        self._hints = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}

    def part(self, stage: Iterable[int], known: dict[str, onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The nodes of a stage; what they read from earlier ones becomes inputs."""
        part = onnx.ModelProto(ir_version=self._proto.ir_version)
        part.opset_import.extend(self._proto.opset_import)
        part.functions.extend(self._proto.functions)
        graph = part.graph
        graph.name = self._proto.graph.name
        graph.node.extend(self._proto.graph.node[place] for place in stage)
        made = [name for node in graph.node for name in node.output]
        graph.value_info.extend(self._hints[name] for name in made if name in self._hints)
        for name in sorted(captures.of_graph(graph)):
            if name in self._weights:
                graph.initializer.append(self._weights[name])
            elif name in self._sparse:
                graph.sparse_initializer.append(self._sparse[name])
            elif name in known:
                graph.input.append(known[name])
        return part
