"""Cuts a graph into clusters: a contraction and the cheap nodes that a runtime fuses into it.

A cluster is what the latency table measures, in a small model of its own. A node that is elementwise or a normalisation
joins the cluster of its latest producer, so that bias, activation, residual addition and normalisation are measured
where the runtime computes them; every other node starts a cluster of its own. Nodes that only move shapes around are
left out: they cost nothing that a width could change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels import ChannelGraph

_FOLLOWERS = """
    Abs Add BatchNormalization BiasGelu Cast Celu Clip Div Elu Erf Exp FastGelu Gelu HardSigmoid HardSwish
    InstanceNormalization LayerNormalization LeakyRelu Log Max Min Mish Mul Neg PRelu Pow QuickGelu RMSNormalization
    Reciprocal Relu Selu Sigmoid SimplifiedLayerNormalization SkipLayerNormalization Softmax Softplus Softsign Sqrt Sub
    Tanh Where
"""
_FREE = "Constant ConstantOfShape Flatten Identity Range Reshape Shape Size Squeeze Unsqueeze"
FOLLOWERS = frozenset(_FOLLOWERS.split())
FREE = frozenset(_FREE.split())


@dataclass
class Cluster:
    """Nodes in topological order, and the names of the channel groups that their tensors touch (sorted)."""

    nodes: list[gs.Node] = field(default_factory=list)
    groups: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(ir.node_key(node) for node in self.nodes)


def clusters(model: ir.Model, graph: ChannelGraph) -> list[Cluster]:
    """Every measured node of a canonical model, each in one cluster."""
    found: list[Cluster] = []
    home: dict[str, int] = {}
    for node in model.graph.nodes:
        if node.op in FREE or ir.has_subgraph(node):
            continue
        producers = [home[t.name] for t in node.inputs if t.name in home]
        if node.op in FOLLOWERS and producers:
            index = max(producers)
        else:
            index = len(found)
            found.append(Cluster())
        found[index].nodes.append(node)
        home.update({tensor.name: index for tensor in node.outputs})
    touched = _groups_of_tensors(graph)
    for cluster in found:
        names = {t.name for node in cluster.nodes for t in (*node.inputs, *node.outputs)}
        cluster.groups = tuple(sorted({group for name in names for group in touched.get(name, ())}))
    return found


def _groups_of_tensors(graph: ChannelGraph) -> dict[str, set[str]]:
    touched: dict[str, set[str]] = {}
    for group in graph.groups:
        for tensor, _axis in group.owner:
            touched.setdefault(tensor, set()).add(group.name)
    return touched


def extract(model: ir.Model, cluster: Cluster, shapes: Mapping[str, tuple[int, ...]]) -> ir.Model:
    """The cluster as a model: activations from outside become inputs of these shapes, what others read (or nobody)
    becomes outputs.
    """
    inside = cluster.keys
    copies: dict[str, gs.Tensor] = {}

    def copied(tensor: gs.Tensor) -> gs.Tensor:
        if not tensor.name:
            return ir.Variable.empty()
        if tensor.name not in copies:
            if isinstance(tensor, gs.Constant):
                copies[tensor.name] = ir.Constant(tensor.name, tensor.values)
            else:
                copies[tensor.name] = ir.Variable(tensor.name, tensor.dtype, list(shapes[tensor.name]))
        return copies[tensor.name]

    nodes = [
        ir.Node(n.op, n.name, dict(n.attrs), [copied(t) for t in n.inputs], [copied(t) for t in n.outputs], n.domain)
        for n in cluster.nodes
    ]
    produced = {t.name for n in cluster.nodes for t in n.outputs if t.name}
    read = {t.name for n in cluster.nodes for t in n.inputs}
    inputs = [t for name, t in copies.items() if isinstance(t, gs.Variable) and name not in produced]
    outer = {
        t.name
        for n in cluster.nodes
        for t in n.outputs
        if t.name and (t.name not in read or any(ir.node_key(c) not in inside for c in ir.consumers(t)))
    } | ({t.name for t in model.graph.outputs} & produced)
    header = onnx.ModelProto()
    header.CopyFrom(model.header)
    del header.metadata_props[:]
    graph = gs.Graph(nodes, inputs, [copies[name] for name in sorted(outer)], name="cluster", opset=model.opset())
    return ir.Model(graph, header)
