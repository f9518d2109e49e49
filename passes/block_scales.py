"""Gives the flat scales and zero points of block-quantized weights the shape of their blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor

_MICROSOFT = "com.microsoft"
_PARAMETERS = (2, 3)


@dataclass(frozen=True)
class BlockScales:
    """Write scales and zero points of ``MatMulNBits`` by rows of the weight, so that a row's can leave with it.

    Rewrites:
      1. ``scales`` and ``zero_points`` of one axis become (N, entries of a row), in copies for this node.
    Requires: nothing.
    Guarantees: bit-equal outputs.
    Leaves alone: parameters that are computed or overridable, or whose length is no multiple of N.
    Options: none.
    References: com.microsoft.MatMulNBits in onnxruntime/docs/ContribOperators.md; earlier versions wrote both flat.
    """

    name: ClassVar[str] = "block-scales"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Visit the products once."""
        editor, shaped = Editor(model), 0
        for node in model.graph.nodes:
            if node.op != "MatMulNBits" or ir.domain(node) != _MICROSOFT:
                continue
            rows = int(ir.attribute(node, "N", 0))
            for slot in _PARAMETERS[: len(node.inputs) - _PARAMETERS[0]]:
                tensor = node.inputs[slot]
                values = editor.constant(tensor) if tensor.name else None
                if values is not None and values.ndim == 1 and values.size and rows > 0 and values.size % rows == 0:
                    fresh = editor.new_constant(tensor.name, values.reshape(rows, -1))
                    editor.set_input(node, slot, fresh)
                    shaped += 1
        return PassResult.of({"parameters": shaped})
