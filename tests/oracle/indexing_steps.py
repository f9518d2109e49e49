"""Steps of random graphs over feature maps (N, C, H, W) that index, sample, count along an axis, or norm in groups."""

from __future__ import annotations

import numpy as np
from graph_builder import Builder, Value


def group_normalization(b: Builder, x: Value) -> Value:
    """Opset 21 is the first whose operator is not deprecated."""
    if b.opset < 21:
        return b.unary("Tanh", x)
    c = x.shape[1]
    groups = b.pick([g for g in (1, 2, 3, c // 2, c) if g and c % g == 0])
    return b.op("GroupNormalization", [x, b.weight(c), b.weight(c)], x.shape, num_groups=groups, epsilon=1e-3)


def counted(b: Builder, x: Value) -> Value:
    """Positions along one axis, channels among them: the others pass."""
    axis = b.pick([1, 2, 3])
    kind = b.pick(["CumSum", "TopK", "ArgMax", "Trilu", "ReverseSequence", "Hardmax"])
    rest = [n for a, n in enumerate(x.shape) if a != axis]
    if kind == "CumSum" and b.opset >= 11:
        return b.op("CumSum", [x, b.constant(np.asarray(axis, np.int32))], x.shape, reverse=int(b.flag()))
    if kind == "TopK" and b.opset >= 10 and x.shape[axis] > 1:
        shape = [2 if a == axis else n for a, n in enumerate(x.shape)]
        values, places = b.ops("TopK", [x, b.ints([2])], [shape, shape], axis=axis)
        return b.binary("Add", values, b.op("Cast", [places], shape, to=1), shape)
    if kind == "Trilu" and b.opset >= 14:
        return b.op("Trilu", [x], x.shape, upper=int(b.flag()))
    if kind == "ReverseSequence" and b.opset >= 10:
        turned = b.op("Transpose", [x], (x.shape[2], x.shape[0], x.shape[1], x.shape[3]), perm=[2, 0, 1, 3])
        back = b.op("ReverseSequence", [turned, b.ints([1, x.shape[2]][: x.shape[0]])], turned.shape)
        return b.op("Transpose", [back], x.shape, perm=[1, 2, 0, 3])
    if kind == "Hardmax":
        return b.binary("Add", x, b.op("Hardmax", [x], x.shape, axis=axis), x.shape)
    kept = b.flag()
    shape = [1 if a == axis else n for a, n in enumerate(x.shape)] if kept else rest
    best = b.op("ArgMax", [x], shape, axis=axis, keepdims=int(kept))
    best = (
        best if kept else b.squeeze("Unsqueeze", best, [axis], [1 if a == axis else n for a, n in enumerate(x.shape)])
    )
    return b.binary("Add", x, b.op("Cast", [best], best.shape, to=1), x.shape)


def indexed(b: Builder, x: Value) -> Value:
    """Gather and scatter by tensors of indices, over rows or over channels."""
    if b.opset < 11:
        return b.unary("Relu", x)
    n, c, h, w = x.shape
    kind = b.pick(["GatherElements", "ScatterElements", "GatherND", "ScatterND", "channels"])
    if kind == "GatherElements":
        indices = b.ints(b.rng.integers(0, h, (n, c, 3, w)))
        return b.op("GatherElements", [x, indices], (n, c, 3, w), axis=2)
    if kind == "ScatterElements":
        part = b.pick([c, c - 1])
        indices = b.ints(np.broadcast_to(b.rng.permutation(h)[:2, None], (n, part, 2, w)))
        return b.op("ScatterElements", [x, indices, b.weight(n, part, 2, w)], x.shape, axis=2)
    if kind == "GatherND":
        turned = b.op("Transpose", [x], (n, h, w, c), perm=[0, 2, 3, 1])
        picked = (
            b.op("GatherND", [turned, b.ints(np.array([[[0], [h - 1]]] * n))], (n, 2, w, c), batch_dims=1)
            if b.opset >= 12
            else b.op("GatherND", [turned, b.ints(np.array([[[0, 0], [0, h - 1]]] * n))], (n, 2, w, c))
        )
        return b.op("Transpose", [picked], (n, c, 2, w), perm=[0, 3, 1, 2])
    if kind == "ScatterND":
        turned = b.op("Transpose", [x], (h, w, n, c), perm=[2, 3, 0, 1])
        done = b.op("ScatterND", [turned, b.ints(np.array([[0, 0], [h - 1, w - 1]])), b.weight(2, n, c)], turned.shape)
        return b.op("Transpose", [done], x.shape, perm=[2, 3, 0, 1])
    indices = b.ints(b.rng.integers(0, c, (n, 4, h, w)))
    return b.op("GatherElements", [x, indices], (n, 4, h, w), axis=1)


def sampled(b: Builder, x: Value) -> Value:
    """Grids, regions, crops, columns, and offsets of a convolution's window."""
    n, c, h, w = x.shape
    kind = b.pick(["GridSample", "RoiAlign", "CenterCropPad", "Col2Im", "DeformConv"])
    if kind == "GridSample" and b.opset >= 16:
        grid = b.constant(b.rng.uniform(-1, 1, (n, 3, 4, 2)).astype(np.float32))
        return b.op("GridSample", [x, grid], (n, c, 3, 4))
    if kind == "RoiAlign" and 10 <= b.opset < 22:  # the runtime has no kernels of opset 22
        regions = b.constant(np.array([[0, 0, 2, 2], [1, 0, 3, 3]], np.float32))
        return b.op("RoiAlign", [x, regions, b.ints([0, n - 1])], (2, c, 3, 4), output_height=3, output_width=4)
    if kind == "CenterCropPad" and b.opset >= 18:
        if b.flag():
            return b.op("CenterCropPad", [x, b.ints([h + 1, 3])], (n, c, h + 1, 3), axes=b.pick([[2, 3], [-2, -1]]))
        return b.op("CenterCropPad", [x, b.ints([n, c, 3, w])], (n, c, 3, w))
    if kind == "Col2Im" and b.opset >= 18 and c % 4 == 0:
        flat = b.reshape(x, (n, c, -1), (n, c, h * w))
        pieces = [b.ints([2 * h, 2 * w]), b.ints([2, 2])]
        return b.op("Col2Im", [flat, *pieces], (n, c // 4, 2 * h, 2 * w), strides=[2, 2])
    if kind == "DeformConv" and b.opset >= 19:
        group, runs = b.pick([(1, 1), (2, 1), (1, 2), (2, 2), (c, 1)]) if c % 2 == 0 else (1, 1)
        weight = b.weight(2 * group, c // group, 1, 1, fan_in=c // group)
        offset = b.constant(b.rng.uniform(-1, 1, (n, 2 * runs, h, w)).astype(np.float32))
        attrs = {"group": group, "offset_group": runs, "kernel_shape": [1, 1]}
        return b.op("DeformConv", [x, weight, offset, b.weight(2 * group)], (n, 2 * group, h, w), **attrs)
    return b.unary("Relu", x)
