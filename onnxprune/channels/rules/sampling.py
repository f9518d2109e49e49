"""Sampling on grids and in regions: channels pass through, positions keep their size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut, editable
from onnxprune.channels.facts import attribute_ints, from_front, rank, ref, size, static
from onnxprune.channels.links import Barrier, Link, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import pass_through


@op_rule("GridSample")
def grid_sample(node: gs.Node, opset: int) -> Iterator[Link]:
    """Every point of the grid reads all channels of one sample; the sampled map keeps its size."""
    x, grid = node.inputs[:2]
    y = node.outputs[0]
    yield from pass_through(x, y, (0, 1))
    yield from pass_through(x, grid, (0,))
    for axis in range(1, rank(grid) - 1):
        if size(grid, axis) is not None or size(y, axis + 1) is not None:
            yield Tie(ref(grid, axis), ref(y, axis + 1))


@op_rule("AffineGrid")
def affine_grid(node: gs.Node, opset: int) -> Iterator[Link]:
    """The grid's sizes are numbers of an input of their own: everything stays."""
    yield from ()


@op_rule("MaxRoiPool", "RoiAlign")
def roi(node: gs.Node, opset: int) -> Iterator[Link]:
    """Channels pass; regions, with the sample that each lies in, become the batch. Samples are counted."""
    x, y = node.inputs[0], node.outputs[0]
    yield from pass_through(x, y, (1,))
    for regions in node.inputs[1:]:
        yield from pass_through(regions, y, (0,))


@op_rule("Col2Im")
def col_to_im(node: gs.Node, opset: int) -> Iterator[Link]:
    """(N, C * positions of the block, L) to (N, C, image...): each channel owns all positions of its block."""
    x, y = node.inputs[0], node.outputs[0]
    columns, channels = static(x, 1), static(y, 1)
    if not channels or columns % channels:
        raise Barrier(f"{columns} columns do not make {channels} channels")
    yield Tie(ref(y, 1), ref(x, 1), np.arange(columns) // (columns // channels))
    yield from pass_through(x, y, (0,))


@op_rule("CenterCropPad")
def center_crop_pad(node: gs.Node, opset: int) -> Iterator[Link]:
    """Axes that keep their size pass, unless their entry of the target cannot be rewritten."""
    x, target = node.inputs[:2]
    y = node.outputs[0]
    for axis, place in enumerate(_places(node)):
        if place is None:
            yield from pass_through(x, y, (axis,))
        elif size(x, axis) is not None and size(x, axis) == size(y, axis) and editable(target, place, opset):
            yield Tie(ref(x, axis), ref(y, axis))


def _places(node: gs.Node) -> list[int | None]:
    """For each axis its entry in the target, None where it has none."""
    count = rank(node.inputs[0])
    axes = attribute_ints(node, "axes")
    listed = list(range(count)) if axes is None else [from_front(axis, count) for axis in axes]
    return [listed.index(axis) if axis in listed else None for axis in range(count)]


@resize_hook("CenterCropPad")
def resize_center_crop_pad(node: gs.Node, opset: int, cut: Cut) -> None:
    y = node.outputs[0]
    sizes: dict[int, int] = {}
    for axis, place in enumerate(_places(node)):
        new = cut.size(y, axis)
        if place is not None and len(cut.gone(y, axis)) and isinstance(new, int):
            sizes[place] = new
    if sizes:
        cut.set_shape(node, 1, sizes)
