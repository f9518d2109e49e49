"""Pools: batch and channels pass through, spatial axes keep their size."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.links import Link
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import pass_through


@op_rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool")
def pool(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from pass_through(node.inputs[0], node.outputs[0], (0, 1))


@op_rule("MaxPool")
def max_pool(node: gs.Node, opset: int) -> Iterator[Link]:
    """The optional second output holds flat positions, which change with the channel count: its axes stay."""
    yield from pass_through(node.inputs[0], node.outputs[0], () if len(node.outputs) > 1 else (0, 1))
