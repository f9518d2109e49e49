"""Gives every reader of a vector of one repeated value a copy of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor


@dataclass(frozen=True)
class SeparateVectors:
    """Undo the sharing of zero biases and of scales that are all one: it would tie channels of unrelated nodes.

    Exporters store equal initializers once. Two normalisations whose scales are still what training began with
    then read one tensor, and no channel of the one could leave without the same channel of the other.

    Rewrites:
      1. A float or 8-bit initializer (zero points) with one axis longer than 1 that holds one repeated value: the first
         reader keeps it, each other place that reads it gets a copy.
    Requires: nothing.
    Guarantees: bit-equal outputs.
    Leaves alone: overridable initializers, tensors that subgraphs capture or that are graph outputs; vectors with
    different values, which modules that are used twice share on purpose; single numbers; matrices; everything from
    ``max_bytes`` on.
    Options: ``max_bytes`` (default 16384): the size from which ``deduplicate-initializers`` may share.
    References: ONNX IR specification, "Initializers".
    """

    name: ClassVar[str] = "separate-vectors"
    promise: ClassVar[Promise] = "exact"

    max_bytes: int = 16384

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Copy for all but the first place that reads the vector."""
        editor = Editor(model)
        copies = 0
        for tensor in list(ir.initializers(model).values()):
            if editor.is_constant(tensor) and tensor.name not in editor.fixed and self._repeats(tensor):
                places = [(node, k) for node in ir.consumers(tensor) for k, x in enumerate(node.inputs) if x is tensor]
                for node, k in places[1:]:
                    node.inputs[k] = editor.new_constant(tensor.name, tensor.values)
                    copies += 1
        return PassResult.of({"copies": copies})

    def _repeats(self, tensor: ir.Constant) -> bool:
        dtype = np.dtype(tensor.dtype)
        counts = dtype.kind in "fV" or (dtype.kind in "iu" and dtype.itemsize == 1)
        if not counts or len(tensor.outputs) < 2 or sum(dim > 1 for dim in tensor.shape) != 1:
            return False
        if math.prod(tensor.shape) * dtype.itemsize >= self.max_bytes:
            return False
        flat = tensor.values.reshape(-1)
        return bool((flat == flat[0]).all())
