"""Resize, Upsample, DepthToSpace, SpaceToDepth: the spatial grid changes, channels pass through or are dealt out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut, editable
from onnxprune.channels.facts import from_front, integer, present, rank, ref, size, static
from onnxprune.channels.links import Barrier, Link, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import pass_through


@op_rule("Resize", "Upsample")
def resize(node: gs.Node, opset: int) -> Iterator[Link]:
    """Axes that keep their size pass through when the scale is 1 or a writable entry of `sizes`. Others stay."""
    x, y = node.inputs[0], node.outputs[0]
    for axis in range(rank(x)):
        length = size(x, axis)
        if length is not None and length == size(y, axis) and _is_copied(node, opset, axis):
            yield from pass_through(x, y, (axis,))


def _is_copied(node: gs.Node, opset: int, axis: int) -> bool:
    """Whether each output element on the axis is the input element with the same number."""
    place = _place(node, axis)
    if place is None:
        return True
    sizes = present(node, 3) if node.op == "Resize" and opset >= 11 else None
    if sizes is not None:
        return (
            editable(sizes, place, opset)
            and ir.attribute(node, "coordinate_transformation_mode") != "tf_crop_and_resize"
            and ir.attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"  # others scale all axes alike
        )
    return _scales(node, opset)[place] == 1.0


def _place(node: gs.Node, axis: int) -> int | None:
    """Where scales and sizes speak about an axis; None when they leave it alone (attribute `axes`, opset 18)."""
    axes = ir.attribute(node, "axes")
    if axes is None:
        return axis
    count = rank(node.inputs[0])
    listed = [from_front(int(a), count) for a in axes]
    return listed.index(axis) if axis in listed else None


def _scales(node: gs.Node, opset: int) -> list[float]:
    if "scales" in node.attrs:
        return [float(v) for v in node.attrs["scales"]]
    slot = 2 if node.op == "Resize" and opset >= 11 else 1
    tensor = present(node, slot)
    values = None if tensor is None else ir.constant(tensor)
    if values is None:
        raise Barrier(f"the scales of {node.op} are computed")
    return [float(v) for v in np.asarray(values).reshape(-1)]


@resize_hook("Resize")
def resize_resize(node: gs.Node, opset: int, cut: Cut) -> None:
    y = node.outputs[0]
    if opset < 11 or present(node, 3) is None:
        return
    sizes: dict[int, int] = {}
    for axis in range(rank(y)):
        place, new = _place(node, axis), cut.size(y, axis)
        if len(cut.gone(y, axis)) and place is not None and isinstance(new, int):
            sizes[place] = new
    if sizes:
        cut.set_shape(node, 3, sizes)


@op_rule("DepthToSpace")
def depth_to_space(node: gs.Node, opset: int) -> Iterator[Link]:
    """C channels hold blocksize^2 positions of C/blocksize^2 ones: (position c) in DCR, (c position) in CRD."""
    x, y = node.inputs[0], node.outputs[0]
    positions, channels = _block(node), static(x, 1)
    index = np.arange(channels)
    column_major = ir.attribute(node, "mode", "DCR") == "CRD"
    yield Tie(ref(y, 1), ref(x, 1), index // positions if column_major else index % (channels // positions))
    yield from pass_through(x, y, (0,))


@op_rule("SpaceToDepth")
def space_to_depth(node: gs.Node, opset: int) -> Iterator[Link]:
    x, y = node.inputs[0], node.outputs[0]
    yield Tie(ref(x, 1), ref(y, 1), np.arange(static(x, 1) * _block(node)) % static(x, 1))
    yield from pass_through(x, y, (0,))


def _block(node: gs.Node) -> int:
    block = integer(node, "blocksize", 0)
    if block < 1:
        raise Barrier(f"blocksize={block}")
    return block * block
