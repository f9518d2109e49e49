"""Drops initial states of recurrent operators that are zero, which is what an absent one means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx.numpy_helper

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, is_standard

RECURRENT = ("GRU", "LSTM", "RNN")
_STATES = (5, 6)
# every element of what these make is one of the first input's
_REARRANGE = (
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
_DEEPEST = 16


@dataclass(frozen=True)
class ZeroStates:
    """Leave out initial states that hold nothing but zeros.

    Exporters write them as slices of one zero tensor for all layers, of a size that is computed at run time. Left in,
    they tie the hidden units of all layers to each other.

    Rewrites:
      1. ``initial_h`` and ``initial_c`` of ``LSTM``, ``GRU`` and ``RNN`` are dropped where they are zero: a constant, a
         ``ConstantOfShape``, or a rearrangement of one.
    Requires: nothing.
    Guarantees: bit-equal outputs.
    Leaves alone: states that are computed, graph inputs, or overridable; negative zeros.
    Options: none.
    References: ONNX operator specification: "if not specified - assumed to be 0".
    """

    name: ClassVar[str] = "zero-states"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Visit the recurrent operators; what only they read is left to ``dead-code``."""
        editor, dropped = Editor(model), 0
        for node in model.graph.nodes:
            if not is_standard(node, *RECURRENT):
                continue
            for slot in (slot for slot in _STATES if slot < len(node.inputs)):
                if node.inputs[slot].name and _is_zero(node.inputs[slot], editor, _DEEPEST):
                    node.inputs[slot] = ir.Variable.empty()
                    dropped += 1
            while not node.inputs[-1].name:
                del node.inputs[-1]
        return PassResult.of({"states": dropped})


def _is_zero(tensor: ir.Variable | ir.Constant, editor: Editor, depth: int) -> bool:
    values = editor.constant(tensor)
    if values is not None:
        return _all_zero(values)
    node = ir.producer(tensor)
    if node is None or depth == 0:
        return False
    if is_standard(node, *_REARRANGE):
        return _is_zero(node.inputs[0], editor, depth - 1)
    fill = ir.attribute(node, "value")
    return is_standard(node, "ConstantOfShape") and (
        fill is None or (isinstance(fill, onnx.TensorProto) and _all_zero(onnx.numpy_helper.to_array(fill)))
    )


def _all_zero(values: np.ndarray) -> bool:
    return values.dtype.kind == "f" and not values.any() and not np.signbit(values).any()
