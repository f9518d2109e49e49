"""Spells the addition in front of a normalisation so that a runtime leaves the two apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, is_standard

IN_PARTS = {"ReduceMean", "Sub"}  # what reads the tensor that is normalised, where LayerNormalization is written out
BROADCASTS = 8  # the opset from which Sum does


@dataclass(frozen=True)
class SumsBeforeNorms:
    """Write ``Add`` of two computed tensors in front of a normalisation as ``Sum``, which ONNX Runtime does not fuse.

    Its ``SkipLayerNormalization`` can be the slower one: on an AVX2 processor 12 of them took 1.5 ms in MiniLM-L6 at 32
    tokens, ``Add`` and ``LayerNormalization`` 0.8 ms (ONNX Runtime 1.31.1, its own profile). Other providers have other
    kernels, so a search measures both forms before it takes one.

    Rewrites:
      1. ``Add`` of two float32 tensors that are no initializers becomes ``Sum`` where a ``LayerNormalization`` reads
         it, whole or written in parts.
    Requires: nothing; analyses expect ``Add``, so this comes last.
    Guarantees: the same values.
    Leaves alone: other types (``Sum`` has no float16 kernel on the CPU), opsets under 8, biases.
    Options: none.
    References: ONNX operators ``Add`` and ``Sum``; com.microsoft ``SkipLayerNormalization``.
    """

    name: ClassVar[str] = "sums-before-norms"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Look at every addition once."""
        editor, spelled = Editor(model), 0
        for node in model.graph.nodes if model.opset() >= BROADCASTS else ():
            if is_standard(node, "Add") and _computed(editor, node) and _normalised(node):
                node.op = "Sum"
                spelled += 1
        return PassResult.of({"Add to Sum": spelled})


def _computed(editor: Editor, node: ir.Node) -> bool:
    known = any(tensor.dtype == np.float32 for tensor in (*node.inputs, *node.outputs))  # all three are of one type
    return known and not any(editor.is_constant(tensor) for tensor in node.inputs)


def _normalised(node: ir.Node) -> bool:
    readers = ir.consumers(node.outputs[0])
    return any(is_standard(each, "LayerNormalization") for each in readers) or {each.op for each in readers} >= IN_PARTS
