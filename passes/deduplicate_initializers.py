"""Stores equal large initializers once."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor


@dataclass(frozen=True)
class DeduplicateInitializers:
    """Make nodes that read bit-equal copies of a large initializer read one of them.

    Rewrites:
      1. Of initializers with the same element type, shape and bytes, the first in graph order stays; readers of the
         others read it.
    Requires: nothing.
    Guarantees: bit-equal outputs.
    Leaves alone: overridable initializers, tensors that subgraphs capture or that are graph outputs; small ones (below
    ``min_bytes``) and ones that hold a single repeated value, since sharing a zero bias or a scale saves nothing and
    would tie channels of unrelated nodes together.
    Options: ``min_bytes`` (default 16384).
    References: ONNX IR specification, "Initializers".
    """

    name: ClassVar[str] = "deduplicate-initializers"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    min_bytes: int = 16384

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Hash the candidates, compare the bytes of those that collide."""
        editor = Editor(model)
        groups: dict[tuple[str, tuple[int, ...], bytes], list[ir.Constant]] = defaultdict(list)
        for tensor in ir.initializers(model).values():
            if editor.is_constant(tensor) and tensor.name not in editor.fixed and self._large(tensor):
                groups[str(tensor.export_dtype), tuple(tensor.shape), _digest(tensor.values)].append(tensor)
        merged = 0
        for first, *rest in groups.values():
            for tensor in rest:
                if first.values.tobytes() == tensor.values.tobytes():
                    editor.redirect(tensor, first)
                    model.loose.pop(tensor.name, None)
                    merged += 1
        return PassResult.of({"initializers": merged})

    def _large(self, tensor: ir.Constant) -> bool:
        dtype = np.dtype(tensor.dtype)
        if dtype.kind == "O" or math.prod(tensor.shape) * dtype.itemsize < self.min_bytes:
            return False
        flat = tensor.values.reshape(-1)
        return bool((flat != flat[0]).any())


def _digest(values: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
