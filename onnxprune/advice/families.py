"""Which family a model belongs to: a table over the sorts of operators that do its work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.facts import is_weight

SORTS = ("convolution", "depthwise", "product", "attention", "recurrence", "other")
"""Sorts of operators: convolutions, those with one input channel a group, products with a constant weight, of two
activations (or fused attention), recurrent cells, and all else.
"""
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "MatMulNBits", "FusedMatMul", "QGemm"})
_ATTENTION = frozenset(
    {"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "DecoderMaskedMultiHeadAttention"}
)
_RECURRENCE = frozenset({"LSTM", "GRU", "RNN"})
_MOST = 0.5
_SOME = 0.2
_DEPTHWISE = 0.25  # of the convolutions


def sort_of(node: gs.Node) -> str:
    """The sort of an operator that multiplies."""
    if node.op in _CONVOLUTIONS:
        weight = next((t for t in node.inputs[1:] if len(t.shape or ()) > 2), None)
        groups = int(ir.attribute(node, "group", 1))
        return "depthwise" if groups > 1 and weight is not None and weight.shape[1] == 1 else "convolution"
    if node.op in _ATTENTION:
        return "attention"
    if node.op in _PRODUCTS or node.op == "Einsum":
        return "product" if any(map(is_weight, node.inputs)) or "Q" in node.op or "NBits" in node.op else "attention"
    return "recurrence" if node.op in _RECURRENCE else "other"


@dataclass(frozen=True)
class Evidence:
    """macs: share by sort. ops: how many nodes of each type. branches: droppable residual ones."""

    macs: Mapping[str, float]
    ops: Mapping[str, int]
    branches: int

    def some(self, names: Iterable[str]) -> bool:
        return any(name in self.ops for name in names)

    @property
    def convolutional(self) -> float:
        return self.macs["convolution"] + self.macs["depthwise"]


@dataclass(frozen=True)
class Family:
    """A name, and when a model is of it; the first row that holds decides."""

    name: str
    holds: Callable[[Evidence], bool]


FAMILIES = (
    Family("no network: nothing multiplies by a matrix", lambda e: not sum(e.macs.values())),
    Family("recurrent", lambda e: e.macs["recurrence"] >= _SOME),
    Family("transformer", lambda e: e.macs["attention"] > 0 and e.some(("Softmax", *_ATTENTION)) and _by_products(e)),
    Family("depthwise CNN", lambda e: e.convolutional > _MOST and _depthwise(e) >= _DEPTHWISE),
    Family("residual CNN", lambda e: e.convolutional > _MOST and e.branches > 0),
    Family("CNN", lambda e: e.convolutional > _MOST),
    Family("perceptron", lambda e: e.macs["product"] > _MOST),
    Family("mixed", lambda e: True),
)


def family_of(evidence: Evidence) -> str:
    """The name of the first family that holds."""
    return next(row.name for row in FAMILIES if row.holds(evidence))


def _by_products(evidence: Evidence) -> bool:
    return evidence.macs["product"] + evidence.macs["attention"] > _MOST


def _depthwise(evidence: Evidence) -> float:
    """The part of the convolutions (nodes, not MACs: they have few) that are depthwise."""
    return evidence.ops.get("depthwise", 0) / max(
        evidence.ops.get("convolution", 0) + evidence.ops.get("depthwise", 0), 1
    )
