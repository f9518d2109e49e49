"""Folds what does not depend on the inputs into initializers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.dtypes import from_numpy
from onnxprune.pipeline import PassContext, PassResult, Promise, Skip
from passes.edits import Editor, is_standard
from passes.evaluation import Budget, evaluate, tensor_bytes
from passes.shapes import refresh

_SPARE_BYTES = 64 << 20
_LARGE_ELEMENTS = 4096
RANDOM = frozenset(
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"]
)


@dataclass(frozen=True)
class ConstantFolding:
    """Replace every tensor that is computed from initializers alone by an initializer.

    Rewrites:
      1. A ``Constant`` node becomes an initializer.
      2. ``CastLike`` of a constant, when the element type of its second input is known, becomes ``Cast``.
      3. A node whose inputs are all initializers is evaluated, and its outputs become initializers. A graph output is
         written by an ``Identity`` of the new initializer, so that the signature stays. A transposed matrix ``w`` that
         nothing else reads is called ``w.T``, so that people can tell what became of a weight.
    Requires: nothing.
    Guarantees: bit-equal initializers: they are computed by the CPU kernels that would have run. Outputs are within the
    tolerance, since a runtime may take another kernel for a weight that has become constant.
    Leaves alone: random operators, operators with subgraphs, other domains and local functions, overridable
    initializers, integer divisions that trap, ``DequantizeLinear`` of a weight in 8 or 4 bits, which the file
    stores in less room than its result takes, and of an int32 bias whose consumer also reads a dequantized activation
    (together they are an int8 kernel), ``Cast`` of a large float16 or bfloat16 weight to a wider type, ``Transpose`` of
    a large weight that other nodes read as it is, results over the budget.
    Options: ``max_growth`` bytes (default 1 MiB) and ``max_ratio`` (default 4): a result may have at most
    ``max_growth + max_ratio * bytes of its inputs`` bytes, all together 64 MiB and twice the model's own.
    References: ONNX operator specification, Constant, CastLike, QuantizeLinear.
    """

    name: ClassVar[str] = "constant-folding"
    promise: ClassVar[Promise] = "tolerance"
    in_subgraphs: ClassVar[bool] = True

    max_growth: int = 1 << 20
    max_ratio: int = 4

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Fold until nothing more is constant."""
        if any(is_standard(node, "CastLike") for node in model.graph.nodes):
            refresh(model)
        editor = Editor(model)
        counts: Counter[str] = Counter()
        for node in list(model.graph.nodes):
            if is_standard(node, "Constant"):
                counts["constant"] += _lower(editor, node)
        functions = {(function.domain, function.name) for function in model.header.functions}
        refused: dict[int, Skip] = {}
        pending = [node for node in model.graph.nodes if node.outputs and _may_fold(node, functions)]
        stored = sum(tensor_bytes(tensor) for tensor in ir.initializers(model).values())
        budget = Budget(self.max_growth, self.max_ratio, _SPARE_BYTES + 2 * stored)
        while wave := [node for node in pending if id(node) not in refused and _ready(editor, node, counts)]:
            values, failures = evaluate(model, wave, budget)
            refused.update((id(node), Skip(ir.node_key(node), reason)) for node, reason in failures)
            for node in wave:
                if id(node) not in refused:
                    counts["folded"] += 1
                    stem = _transposed(editor, node)
                    for tensor in [tensor for tensor in node.outputs if tensor.name]:
                        editor.make_constant(tensor, values[tensor.name])
                        if stem:
                            tensor.name = editor.new_name(stem)
            pending = [node for node in pending if node.outputs]
        editor.finish()
        return PassResult.of(counts, refused.values())


def _lower(editor: Editor, node: ir.Node) -> int:
    values = ir.constant(node.outputs[0])
    if values is None or node.outputs[0].name == "":
        return 0
    editor.make_constant(node.outputs[0], values)
    return 1


def _may_fold(node: ir.Node, functions: set[tuple[str, str]]) -> bool:
    local = any((spelling, node.op) in functions for spelling in ("", "ai.onnx"))
    return not (ir.domain(node) or local or node.op in RANDOM or node.op == "Identity" or ir.has_subgraph(node))


def _transposed(editor: Editor, node: ir.Node) -> str:
    """The name that a folded transposed matrix gets, where nothing else reads the matrix or needs the old name."""
    if node.op != "Transpose" or ir.attribute(node, "perm", [1, 0]) != [1, 0]:
        return ""
    source, output = node.inputs[0], node.outputs[0]
    alone = editor.only_use(source) is node and output.name not in editor.fixed
    return f"{source.name}.T" if alone and len(source.shape) == 2 else ""


def _ready(editor: Editor, node: ir.Node, counts: Counter[str]) -> bool:
    if node.op == "CastLike" and not editor.is_constant(node.inputs[1]) and editor.is_constant(node.inputs[0]):
        counts["cast-like"] += _to_cast(node)
    named = [tensor for tensor in node.inputs if tensor.name]
    if not named or not all(editor.is_constant(tensor) for tensor in named):
        return False
    if node.op == "Cast":
        return not _widens(node)
    if node.op == "Transpose":
        return not _is_tied(node)
    return node.op != "DequantizeLinear" or not _is_quantized_weight(editor, node)


def _is_tied(node: ir.Node) -> bool:
    """Whether a large weight is read in another layout too, as a tied embedding is: the file would hold it twice."""
    weight = node.inputs[0]
    return len(ir.consumers(weight)) > 1 and math.prod(weight.shape) >= _LARGE_ELEMENTS


def _widens(node: ir.Node) -> bool:
    """Whether the node is a cast of a large weight from half precision: the file would grow by what it saved."""
    narrow = np.dtype(node.inputs[0].dtype).name in ("float16", "bfloat16")
    wide = int(ir.attribute(node, "to", 0)) in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return narrow and wide and math.prod(node.inputs[0].shape) >= _LARGE_ELEMENTS


def _to_cast(node: ir.Node) -> int:
    dtype = node.inputs[1].dtype
    if dtype is None:
        return 0
    del node.inputs[1]
    node.op = "Cast"
    node.attrs["to"] = int(from_numpy(dtype))
    return 1


def _is_quantized_weight(editor: Editor, node: ir.Node) -> bool:
    """Whether the result takes more room than what is stored, or an int32 bias is part of an int8 kernel."""
    if np.dtype(node.inputs[0].dtype) != np.int32:
        return True
    return any(_dequantizes(editor, tensor) for user in _readers(node) for tensor in user.inputs)


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that read the result, seen through ops that only move elements."""
    for user in ir.consumers(node.outputs[0]):
        if user.op in ("Reshape", "Transpose", "Squeeze", "Unsqueeze"):
            yield from _readers(user)
        else:
            yield user


def _dequantizes(editor: Editor, tensor: gs.Tensor) -> bool:
    maker = ir.producer(tensor)
    return maker is not None and maker.op == "DequantizeLinear" and not editor.is_constant(maker.inputs[0])
