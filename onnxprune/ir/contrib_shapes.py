"""Shape functions of the com.microsoft operators that ONNX Runtime's optimisers write, and of those that
they put into the standard domain: SimplifiedLayerNormalization, and LayerNormalization before opset 17.

Each takes the node and the types of its inputs (None where unknown) and returns the types of its outputs. Source:
onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.ir.contrib_attention_shapes import ATTENTION_SHAPES
from onnxprune.ir.query import attribute
from onnxprune.ir.types import Dim, ShapeFunction, TensorType

MICROSOFT = "com.microsoft"
_Types = Sequence[TensorType | None]


def _alike(node: gs.Node, inputs: _Types) -> _Types:
    """Every output has the type of the first input."""
    return [inputs[0]] * len(node.outputs)


def _dropout(node: gs.Node, inputs: _Types) -> _Types:
    x = inputs[0]
    return [x, None if x is None else TensorType(np.dtype(bool), x.shape)]


def _halved(node: gs.Node, inputs: _Types) -> _Types:
    x = inputs[0]
    if x is None:
        return [None]
    return [TensorType(x.dtype, [*x.shape[:-1], _half(x.shape[-1])])]


def _half(dim: Dim) -> Dim:
    return dim // 2 if isinstance(dim, int) else None


def _statistics(x: TensorType) -> TensorType:
    return TensorType(np.dtype(np.float32), [*x.shape[:-1], 1])


def _normalization(node: gs.Node, inputs: _Types) -> _Types:
    """The output, then mean and inverse deviation, or the latter alone, over the axes from `axis` on."""
    x = inputs[0]
    if x is None:
        return [None] * 3
    axis = int(attribute(node, "axis", -1)) % len(x.shape)
    ones: list[Dim] = [1] * (len(x.shape) - axis)
    statistic = TensorType(np.dtype(np.float32), [*x.shape[:axis], *ones])
    return [x, statistic, statistic]


def _skip_normalization(node: gs.Node, inputs: _Types) -> _Types:
    """The output, mean, inverse deviation, and the sum that was normalised."""
    x = inputs[0]
    return [None] * 4 if x is None else [x, _statistics(x), _statistics(x), x]


def _embedding(node: gs.Node, inputs: _Types) -> _Types:
    """(batch, length, hidden), the lengths that the mask leaves, and the sum before normalisation."""
    ids, table = inputs[0], inputs[2]
    if ids is None or table is None:
        return [None, None, None]
    y = TensorType(table.dtype, [*ids.shape, table.shape[1]])
    return [y, TensorType(np.dtype(np.int32), ids.shape[:1]), y]


def _gemm(node: gs.Node, inputs: _Types) -> _Types:
    a, b = inputs[:2]
    if a is None or b is None:
        return [None]
    rows = a.shape[1 if attribute(node, "transA", 0) else 0]
    return [TensorType(a.dtype, [rows, b.shape[0 if attribute(node, "transB", 0) else 1]])]


def _matmul(node: gs.Node, inputs: _Types) -> _Types:
    """Numpy matmul of operands whose axes are turned first: transBatch, then trans."""
    a, b = inputs[:2]
    if a is None or b is None:
        return [None]
    left, right = _turned(node, a.shape, "A"), _turned(node, b.shape, "B")
    batch = _broadcast(left[:-2], right[:-2])
    return [TensorType(a.dtype, [*batch, *left[-2:-1], *right[-1:][: len(right) - 1]])]


def _turned(node: gs.Node, shape: Sequence[Dim], which: str) -> list[Dim]:
    dims = list(shape)
    if len(dims) > 2 and attribute(node, f"transBatch{which}", 0):
        dims = [*dims[1:-1], dims[0], dims[-1]]
    if len(dims) > 1 and attribute(node, f"trans{which}", 0):
        dims[-2:] = dims[:-3:-1]
    return dims


def _broadcast(a: Sequence[Dim], b: Sequence[Dim]) -> list[Dim]:
    count = max(len(a), len(b))
    pairs = zip([1] * (count - len(a)) + list(a), [1] * (count - len(b)) + list(b), strict=True)
    return [
        y if x == 1 else x if y in (1, x) or isinstance(x, int) else y if isinstance(y, int) else None for x, y in pairs
    ]


def _linear(node: gs.Node, inputs: _Types) -> _Types:
    """The last axis of the input becomes the columns of a weight (inputs, outputs)."""
    x, w = inputs[:2]
    return [None if x is None or w is None else TensorType(x.dtype, [*x.shape[:-1], w.shape[1]])]


def _quantized_linear(node: gs.Node, inputs: _Types) -> _Types:
    x = inputs[0]
    return [None if x is None else TensorType(x.dtype, [*x.shape[:-1], int(attribute(node, "N", 0)) or None])]


def _conv(*, channels_last: bool) -> ShapeFunction:
    """Convolution with a weight (outputs, inputs / group, kernel...)."""

    def shapes(node: gs.Node, inputs: _Types) -> _Types:
        x, w = inputs[:2]
        if x is None or w is None:
            return [None]
        spatial = x.shape[1:-1] if channels_last else x.shape[2:]
        sizes = [_window(node, place, size, w.shape[2 + place]) for place, size in enumerate(spatial)]
        dims = [*sizes, w.shape[0]] if channels_last else [w.shape[0], *sizes]
        return [TensorType(x.dtype, [x.shape[0], *dims])]

    return shapes


def _window(node: gs.Node, place: int, size: Dim, kernel: Dim) -> Dim:
    """The size of a spatial axis behind a convolution."""
    stride = (attribute(node, "strides") or [1] * (place + 1))[place]
    if not isinstance(size, int) or not isinstance(kernel, int):
        return None
    automatic = str(attribute(node, "auto_pad", "NOTSET"))
    if automatic.startswith("SAME"):
        return -(-size // int(stride))
    pads = attribute(node, "pads")
    padding = 0 if automatic == "VALID" or not pads else int(pads[place]) + int(pads[place + len(pads) // 2])
    dilation = (attribute(node, "dilations") or [1] * (place + 1))[place]
    return int((size + padding - int(dilation) * (kernel - 1) - 1) // int(stride) + 1)


_SHAPES: dict[str, Callable[[gs.Node, _Types], _Types]] = {
    **dict.fromkeys(("BiasAdd", "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "RotaryEmbedding"), _alike),
    **dict.fromkeys(("GroupNorm", "SkipGroupNorm"), _alike),
    **dict.fromkeys(("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"), _matmul),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_normalization),
    **dict.fromkeys(("NhwcConv", "NhwcFusedConv"), _conv(channels_last=True)),
    "BiasDropout": _dropout,
    "BiasSplitGelu": _halved,
    "EmbedLayerNormalization": _embedding,
    "FusedConv": _conv(channels_last=False),
    "FusedGemm": _gemm,
    "GemmFastGelu": _linear,
    "MatMulNBits": _quantized_linear,
    "SimplifiedLayerNormalization": _normalization,
}
CONTRIB_SHAPES: dict[tuple[str, str], ShapeFunction] = {
    **{(MICROSOFT, op): function for op, function in _SHAPES.items()},
    **{(MICROSOFT, op): function for op, function in ATTENTION_SHAPES.items()},
    ("", "LayerNormalization"): _normalization,
    ("", "SimplifiedLayerNormalization"): _normalization,
}
