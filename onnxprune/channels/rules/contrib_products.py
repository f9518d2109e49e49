"""Products of com.microsoft: Gemm, MatMul and Conv with a transposition, an activation or a sum fused in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, is_weight, present, rank, ref, size, static
from onnxprune.channels.links import Barrier, Contract, Link, Produce, Role, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.alike import broadcast, pass_through, spanning
from onnxprune.channels.rules.convolution import conv, resize_conv
from onnxprune.channels.rules.product import free, gemm, summed

MICROSOFT = "com.microsoft"


@op_rule("FusedGemm", domain=MICROSOFT)
def fused_gemm(node: gs.Node, opset: int) -> Iterator[Link]:
    """Gemm, then an activation that works element by element."""
    if str(node.attrs.get("activation", "")) in ("Softmax", "LogSoftmax"):
        raise Barrier("its activation normalises over the outputs")
    yield from gemm(node, opset)


@op_rule("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(node: gs.Node, opset: int) -> Iterator[Link]:
    """MatMul of operands that are transposed first: the first axis goes behind the batch axes (transBatch), then the
    last two change places (trans).
    """
    if str(node.attrs.get("activation", "")) in ("Softmax", "LogSoftmax"):
        raise Barrier("its activation normalises over the outputs")
    a, b = node.inputs[:2]
    y = node.outputs[0]
    a_axes, b_axes = _order(node, a, "A"), _order(node, b, "B")
    last = rank(y) - 1
    if len(a_axes) > 1:
        yield from free(a, a_axes[-2], y, last - (len(b_axes) > 1))
    if len(b_axes) > 1:
        yield from free(b, b_axes[-1], y, last)
    yield from summed(a, a_axes[-1], b, b_axes[-2] if len(b_axes) > 1 else 0)
    between = not is_weight(a) and not is_weight(b)
    lead = rank(y) - (len(a_axes) > 1) - (len(b_axes) > 1)
    for operand, axes in ((a, a_axes[:-2]), (b, b_axes[:-2])):
        for place, axis in enumerate(axes):
            ties = list(spanning(operand, axis, y, lead - len(axes) + place))
            yield from ties
            if ties and between and size(operand, axis) is not None:
                yield Role(ref(operand, axis), "head")
    if between:
        inner = [(b, b_axes[-2] if len(b_axes) > 1 else 0), (b, b_axes[-1]), (a, a_axes[max(len(a_axes) - 2, 0)])]
        yield from (Role(ref(tensor, axis), "head_dim") for tensor, axis in inner if size(tensor, axis) is not None)


def _order(node: gs.Node, tensor: gs.Tensor, which: str) -> list[int]:
    """The axes of an operand as the product sees them: batch axes, rows, columns."""
    axes = list(range(rank(tensor)))
    if len(axes) > 2 and integer(node, f"transBatch{which}", 0):
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if len(axes) > 1 and integer(node, f"trans{which}", 0):
        axes[-2:] = axes[:-3:-1]
    return axes


@op_rule("GemmFastGelu", domain=MICROSOFT)
def gemm_fast_gelu(node: gs.Node, opset: int) -> Iterator[Link]:
    x, w, bias, y = node.inputs[0], node.inputs[1], present(node, 2), node.outputs[0]
    yield from pass_through(x, y, range(rank(x) - 1))
    yield from free(w, 1, y, rank(y) - 1)
    yield from summed(x, rank(x) - 1, w, 0)
    if bias is not None:
        yield from broadcast([bias], y)


@op_rule("FusedConv", domain=MICROSOFT)
def fused_conv(node: gs.Node, opset: int) -> Iterator[Link]:
    """Conv, plus a tensor of the output's shape, then an activation that works element by element."""
    yield from conv(node, opset)
    more = present(node, 3)
    if more is not None:
        yield from pass_through(more, node.outputs[0], (0, 1))


@resize_hook("FusedConv", domain=MICROSOFT)
def resize_fused_conv(node: gs.Node, opset: int, cut: Cut) -> None:
    resize_conv(node, opset, cut)


@op_rule("NhwcConv", "NhwcFusedConv", domain=MICROSOFT)
def channels_last_conv(node: gs.Node, opset: int) -> Iterator[Link]:
    """X and Y hold the channels last; W stays (M, C, kernel...). Grouped ones only where each channel is a group."""
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if not is_weight(w):
        raise Barrier(f"its weight {w.name} is not constant")
    group, channels, outputs = integer(node, "group", 1), static(x, rank(x) - 1), static(w, 0)
    yield Tie(ref(w, 0), ref(y, -1))
    if group == 1 and static(w, 1) == channels:
        yield Tie(ref(w, 1), ref(x, -1))
        yield Contract(ref(w, 1))
        yield Produce(ref(w, 0), "channel")
    elif group == channels and static(w, 1) == 1 and outputs % channels == 0:
        yield Tie(ref(x, -1), ref(w, 0), np.arange(outputs) // (outputs // channels))
    else:
        raise Barrier(f"group={group} does not fit {channels} input channels held last and {outputs} output channels")
    yield from pass_through(x, y, (0,))
    bias, more = present(node, 2), present(node, 3)
    if bias is not None:
        yield Tie(ref(y, -1), ref(bias, 0))
    if more is not None:
        yield from pass_through(more, y, (0, rank(y) - 1))


@resize_hook("NhwcConv", "NhwcFusedConv", domain=MICROSOFT)
def resize_channels_last_conv(node: gs.Node, opset: int, cut: Cut) -> None:
    x = node.inputs[0]
    if integer(node, "group", 1) > 1:
        node.attrs["group"] = len(cut.kept(x, rank(x) - 1))
