"""Sets weights that are too small to be normal numbers to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, is_standard

# Sign and smallest normal number as bits: a thread whose processor treats denormals as zero sees none among numbers.
_BITS: dict[np.dtype[Any], tuple[np.unsignedinteger[Any], np.unsignedinteger[Any]]] = {
    np.dtype(np.float32): (np.uint32(1 << 31), np.uint32(1 << 23)),
    np.dtype(np.float64): (np.uint64(1 << 63), np.uint64(1 << 52)),
}
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class FlushDenormals:
    """Replace denormal weights by zero: a product with one is below 1e-37 of its other factor, and costs 10x the time.

    Rewrites:
      1. In an initializer of float32 or float64 that ``Conv``, ``ConvTranspose``, ``Gemm``, ``MatMul`` or a recurrent
         operator reads as a weight, every value with a magnitude under the smallest normal number becomes 0 of its
         sign.
    Requires: nothing.
    Guarantees: outputs within the tolerance; bit-equal unless they are denormal themselves.
    Leaves alone: float16 and bfloat16 (their denormals are ordinary small weights), constants of other operators (an
    epsilon must stay positive), overridable initializers.
    Options: none.
    References: IEEE 754-2019, 3.4; Intel 64 and IA-32 Optimization Reference Manual, "Denormal".
    """

    name: ClassVar[str] = "flush-denormals"
    promise: ClassVar[Promise] = "tolerance"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Look at every weight once."""
        editor = Editor(model)
        seen: set[str] = set()
        flushed = 0
        for node in model.graph.nodes:
            for tensor in node.inputs if is_standard(node, *WEIGHTED) else ():
                if not editor.is_constant(tensor) or tensor.name in seen:
                    continue
                seen.add(tensor.name)
                if all(is_standard(user, *WEIGHTED) for user in tensor.outputs):
                    flushed += _flush(tensor)
        return PassResult.of({"values": flushed})


def _flush(tensor: ir.Constant) -> int:
    dtype = np.dtype(tensor.dtype)
    if dtype not in _BITS:
        return 0
    minus, smallest = _BITS[dtype]
    bits: np.ndarray = np.require(tensor.values, requirements="C").view(minus.dtype)
    sign = np.bitwise_and(bits, minus)
    denormal = (bits != sign) & (bits - sign < smallest)
    count = int(np.count_nonzero(denormal))
    if count:
        tensor.values = np.where(denormal, sign, bits).view(dtype)
    return count
