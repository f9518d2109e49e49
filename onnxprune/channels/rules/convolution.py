"""Conv and ConvTranspose: grouped, depthwise, dilated, with any number of spatial axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, is_weight, present, ref, static
from onnxprune.channels.links import Barrier, Contract, Link, Produce, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import pass_through


@op_rule("Conv")
def conv(node: gs.Node, opset: int) -> Iterator[Link]:
    """W is (M, C/group, kernel...). The same offset leaves every group; with one channel a group, whole groups
    leave.
    """
    yield from convolve(node, node.inputs[0], node.inputs[1], present(node, 2))


def convolve(node: gs.Node, x: gs.Tensor, w: gs.Tensor, bias: gs.Tensor | None) -> Iterator[Link]:
    """The links of a convolution whose operands sit in any slots of the node."""
    y = node.outputs[0]
    _constant_weight(w)
    group, channels = integer(node, "group", 1), static(x, 1)
    outputs, inputs = static(w, 0), static(w, 1)
    if group < 1 or inputs * group != channels or outputs % group:
        raise Barrier(f"group={group} does not fit {channels} input and {outputs} output channels")
    yield Tie(ref(w, 0), ref(y, 1))
    if group > 1 and inputs == 1:
        yield Tie(ref(x, 1), ref(w, 0), np.arange(outputs) // (outputs // group))
    else:
        yield Tie(ref(w, 1), ref(x, 1), None if group == 1 else np.arange(channels) % inputs)
        yield Contract(ref(w, 1))
        yield Produce(ref(w, 0), "channel")
        if group > 1:
            yield Tie(ref(w, 0), ref(w, 0), np.arange(outputs) % (outputs // group))
    yield from _batch_and_bias(x, bias, y)


@op_rule("DeformConv", since=19)
def deform_conv(node: gs.Node, opset: int) -> Iterator[Link]:
    """A convolution whose channels share offsets in `offset_group` runs: the same place leaves every run.

    Offsets and masks are per kernel position, and stay.
    """
    x, w, offset = node.inputs[:3]
    runs, channels = integer(node, "offset_group", 1), static(x, 1)
    if runs < 1 or channels % runs:
        raise Barrier(f"{channels} channels do not make {runs} runs of offsets")
    yield from convolve(node, x, w, present(node, 3))
    if runs > 1:
        yield Tie(ref(x, 1), ref(x, 1), np.arange(channels) % (channels // runs))
    for given in (offset, present(node, 4)):
        if given is not None:
            yield from pass_through(x, given, (0,))


@op_rule("ConvTranspose")
def conv_transpose(node: gs.Node, opset: int) -> Iterator[Link]:
    """W is (C, M/group, kernel...): the contracted axis is the first, the outputs of all groups share the second."""
    x, w = node.inputs[:2]
    y = node.outputs[0]
    _constant_weight(w)
    group, channels, outputs = integer(node, "group", 1), static(x, 1), static(w, 1)
    if group < 1 or static(w, 0) != channels or channels % group:
        raise Barrier(f"group={group} does not fit {channels} input channels and W of {static(w, 0)}")
    yield Tie(ref(w, 0), ref(x, 1))
    if group == 1 or channels > group:
        yield Tie(ref(w, 1), ref(y, 1), None if group == 1 else np.arange(outputs * group) % outputs)
        yield Contract(ref(w, 0))
        yield Produce(ref(w, 1), "channel")
        if group > 1:
            yield Tie(ref(w, 0), ref(w, 0), np.arange(channels) % (channels // group))
    else:
        yield Tie(ref(w, 0), ref(y, 1), np.arange(outputs * group) // outputs)
    yield from _batch_and_bias(x, present(node, 2), y)


def _constant_weight(w: gs.Tensor) -> None:
    if not is_weight(w):
        raise Barrier(f"its weight {w.name} is not constant")


def _batch_and_bias(x: gs.Tensor, bias: gs.Tensor | None, y: gs.Tensor) -> Iterator[Link]:
    if isinstance(x.shape[0], int) and isinstance(y.shape[0], int):
        yield Tie(ref(x, 0), ref(y, 0))
    if bias is not None:
        yield Tie(ref(y, 1), ref(bias, 0))


@resize_hook("Conv", "DeformConv")
def resize_conv(node: gs.Node, opset: int, cut: Cut) -> None:
    resize_groups(node, node.inputs[0], node.inputs[1], cut)


def resize_groups(node: gs.Node, x: gs.Tensor, w: gs.Tensor, cut: Cut) -> None:
    """Only the depthwise form loses groups."""
    group = integer(node, "group", 1)
    if group > 1 and w.shape[1] == 1:
        node.attrs["group"] = group - len(cut.gone(x, 1))


@resize_hook("ConvTranspose")
def resize_conv_transpose(node: gs.Node, opset: int, cut: Cut) -> None:
    x = node.inputs[0]
    group = integer(node, "group", 1)
    if group > 1 and x.shape[1] == group:
        node.attrs["group"] = group - len(cut.gone(x, 1))
