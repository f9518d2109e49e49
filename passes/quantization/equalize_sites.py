"""Where channels can be divided: tensors that only 8-bit contractions read, or that a Mul can divide for them.

1. Behind a Conv or Gemm, with nothing between but operators that commute with positive factors a channel: the divisor
   goes into the producer's weights (Nagel et al., arXiv 1906.04721, eq. 7; ReLU and pools commute, Clip does not).
2. Before MatMul and Gemm whose input a float operator writes (a normalisation, an activation, attention): a Mul in
   front of QuantizeLinear divides. It is the only node that is added; QuantizeLinear with a scale a channel would save
   it, and is some forty times slower where channels come last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats.product import Product

_COMMUTING = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True)
class Site:
    """`tensor` is read by the contractions `readers` (node keys). `producer`: the contraction whose outputs are to be
    divided; None where a Mul before the readers divides. `channels`: of the tensor.
    """

    tensor: str
    readers: tuple[str, ...]
    producer: str | None
    channels: int


def sites(model: ir.Model, chosen: Sequence[gs.Node], known: Mapping[str, Product]) -> list[Site]:
    """All of them, in graph order."""
    quantized = {ir.node_key(node) for node in chosen}
    fixed = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    readers: dict[str, list[gs.Node]] = {}
    for node in chosen:
        if ir.node_key(node) in known and known[ir.node_key(node)].data == node.inputs[0].name:
            readers.setdefault(node.inputs[0].name, []).append(node)
    found = (_site(nodes, quantized, known, fixed) for nodes in readers.values())
    return [site for site in found if site is not None]


def _site(nodes: list[gs.Node], quantized: set[str], known: Mapping[str, Product], fixed: set[str]) -> Site | None:
    tensor = nodes[0].inputs[0]
    keys = tuple(ir.node_key(node) for node in nodes)
    first = known[keys[0]]
    channels = first.shape[first.input_axis] * first.groups
    producer = _producer(tensor, fixed) if len(ir.consumers(tensor)) == len(nodes) else None
    if producer is not None and producer in known and known[producer].outputs == channels:
        return Site(tensor.name, keys, producer, channels)
    source = ir.producer(tensor)
    in_float = source is not None and ir.node_key(source) not in quantized
    products = all(node.op != "Conv" and not known[key].transposed_data for node, key in zip(nodes, keys, strict=True))
    return Site(tensor.name, keys, None, channels) if in_float and products else None


def _producer(tensor: gs.Tensor, fixed: set[str]) -> str | None:
    """Key of the Conv or Gemm that `tensor` comes from through operators that commute with factors a channel, with no
    other reader between.
    """
    while tensor.name not in fixed:
        source = ir.producer(tensor)
        if source is None or ir.domain(source):
            return None
        if source.op in ("Conv", "Gemm"):
            return ir.node_key(source)
        if source.op not in _COMMUTING or len(ir.consumers(source.inputs[0])) != 1:
            return None
        tensor = source.inputs[0]
    return None
