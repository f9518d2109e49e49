"""Concat and Split: an axis made of runs of other axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import axis_of, present, rank, ref, size, static
from onnxprune.channels.links import Barrier, Link, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import pass_through


@op_rule("Concat")
def concat(node: gs.Node, opset: int) -> Iterator[Link]:
    """The inputs follow each other along `axis`; the other axes are common."""
    y = node.outputs[0]
    yield from runs(y, list(node.inputs), axis_of(node, y, 1))


@op_rule("Split")
def split(node: gs.Node, opset: int) -> Iterator[Link]:
    """Sizes: attribute before 13, input since, or equal parts. Outputs that nobody names still take their run."""
    x = node.inputs[0]
    if any(not y.name for y in node.outputs):
        raise Barrier("an output of Split is left out")
    yield from runs(x, list(node.outputs), axis_of(node, x, 0))


def runs(whole: gs.Tensor, parts: list[gs.Tensor], axis: int) -> Iterator[Link]:
    """The parts follow each other along `axis` of the whole; the other axes are common."""
    if axis >= rank(whole):
        raise Barrier(f"axis {axis} is outside of {whole.name}")
    start = 0
    for part in parts:
        yield from pass_through(whole, part, (a for a in range(rank(whole)) if a != axis))
        if size(whole, axis) is not None:
            length = static(part, axis)
            yield Tie(ref(whole, axis), ref(part, axis), np.arange(start, start + length))
            start += length
    if size(whole, axis) not in (None, start):
        raise Barrier(f"the parts add up to {start}, not to {size(whole, axis)}")


@resize_hook("Split")
def resize_split(node: gs.Node, opset: int, cut: Cut) -> None:
    x = node.inputs[0]
    axis = axis_of(node, x, 0)
    if not len(cut.gone(x, axis)):
        return
    sizes = [len(cut.kept(y, axis)) for y in node.outputs]
    if opset < 13:
        node.attrs["split"] = sizes
        return
    node.attrs.pop("num_outputs", None)
    if present(node, 1) is None and len(set(sizes)) == 1 and opset < 18:
        return
    stem = ir.node_key(node)
    if len(node.inputs) < 2:
        node.inputs.append(cut.constant(f"{stem}.split", sizes))
    else:
        cut.set_input(node, 1, sizes)
