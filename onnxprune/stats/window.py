"""Where a convolution reads: kernel, strides, dilations and padding in any number of dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats.arrays import Array

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Geometry of a Conv (``forward``) or ConvTranspose; every tuple holds one number a spatial dimension."""

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    begins: Sizes
    ends: Sizes
    auto_pad: str
    output_padding: Sizes
    forward: bool

    @staticmethod
    def of(node: gs.Node, weight: gs.Tensor, *, forward: bool) -> Window | None:
        """None for a ConvTranspose whose output shape, rather than its padding, is given."""
        kernel = tuple(int(size) for size in weight.shape[2:])
        rank = len(kernel)
        auto_pad = str(ir.attribute(node, "auto_pad", "NOTSET"))
        if not forward and (auto_pad.startswith("SAME") or "output_shape" in node.attrs):
            return None
        pads = _ints(ir.attribute(node, "pads"), 2 * rank, 0) if auto_pad == "NOTSET" else (0,) * (2 * rank)
        return Window(
            kernel=kernel,
            strides=_ints(ir.attribute(node, "strides"), rank, 1),
            dilations=_ints(ir.attribute(node, "dilations"), rank, 1),
            begins=pads[:rank],
            ends=pads[rank:],
            auto_pad=auto_pad,
            output_padding=_ints(ir.attribute(node, "output_padding"), rank, 0),
            forward=forward,
        )

    def output(self, sizes: Sizes) -> Sizes:
        """Spatial sizes of the output for an input of spatial ``sizes``."""
        if self.auto_pad.startswith("SAME"):
            return tuple(-(-size // stride) for size, stride in zip(sizes, self.strides, strict=True))
        spans = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilations, strict=True)]
        pads = [begin + end for begin, end in zip(self.begins, self.ends, strict=True)]
        rows = zip(sizes, spans, pads, self.strides, self.output_padding, strict=True)
        if self.forward:
            return tuple((size + pad - span) // stride + 1 for size, span, pad, stride, _ in rows)
        return tuple((size - 1) * stride + extra + span - pad for size, span, pad, stride, extra in rows)

    def _begin(self, sizes: Sizes) -> Sizes:
        if not self.auto_pad.startswith("SAME"):
            return self.begins
        out = self.output(sizes)
        spans = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilations, strict=True)]
        rows = zip(out, self.strides, spans, sizes, strict=True)
        totals = [max((count - 1) * stride + span - size, 0) for count, stride, span, size in rows]
        return tuple(total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2 for total in totals)

    def reads(self, positions: Array, sizes: Sizes) -> tuple[Array, Array]:
        """For output positions (flat, (m,)): the flat input position under each kernel element, (m, kernel), and
        whether it is inside.
        """
        grid = np.stack(np.unravel_index(positions, self.output(sizes)), -1)[:, None, :]
        offsets = (
            np.stack(np.unravel_index(np.arange(int(np.prod(self.kernel))), self.kernel), -1)[None] * self.dilations
        )
        begins, strides = np.array(self._begin(sizes)), np.array(self.strides)
        if self.forward:
            places = grid * strides + offsets - begins
            inside = np.ones(places.shape[:2], bool)
        else:
            scaled = grid + begins - offsets
            places, rest = scaled // strides, scaled % strides
            inside = (rest == 0).all(-1)
        inside &= ((places >= 0) & (places < np.array(sizes))).all(-1)
        flat = np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), sizes, mode="clip")
        return flat, inside


def _ints(values: object, count: int, default: int) -> Sizes:
    return tuple(int(value) for value in values) if isinstance(values, (list, tuple)) and values else (default,) * count
