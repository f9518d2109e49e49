"""Masked forms of operators whose formula holds the channel count.

With n elements on the axis of which k are kept, and s(x, v) = x where kept and v where removed:

====================================  ==========================================================
Softmax, LogSoftmax, Hardmax          f(s(x, -inf))
ReduceMean                            ReduceMean(s(x, 0)) * n / k
ReduceSum, L1, L2, SumSquare, LogSum  f(s(x, 0))
ReduceMax, LogSumExp; Min; Prod       f(s(x, -inf)); f(s(x, +inf)); f(s(x, 1))
LpNormalization                       f(s(x, 0))
LayerNormalization and its family     sums over kept elements, divisor k
====================================  ==========================================================

Everything else works channel by channel and needs no masked form; if it does not, the comparison says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from passes.verify_masking.contractions import attribute
from passes.verify_masking.editor import Editor
from passes.verify_masking.fused_normalization import FUSED
from passes.verify_masking.normalization import NORMALIZATIONS
from passes.verify_masking.plan import Mask

_INF = float("inf")
NEUTRAL = {
    "ReduceMean": 0.0,
    "ReduceSum": 0.0,
    "ReduceL1": 0.0,
    "ReduceL2": 0.0,
    "ReduceSumSquare": 0.0,
    "ReduceLogSum": 0.0,
    "ReduceMax": -_INF,
    "ReduceMin": _INF,
    "ReduceProd": 1.0,
    "ReduceLogSumExp": -_INF,
}


def _copy(node: onnx.NodeProto, x: str, output: str | None = None) -> onnx.NodeProto:
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.input[0] = x
    if output is not None:
        twin.output[0] = output
    return twin


def _softmax(node: onnx.NodeProto, editor: Editor) -> bool:
    x = node.input[0]
    rank = editor.rank(x)
    axis = attribute(node, "axis", -1 if editor.opset >= 13 else 1) % rank
    # Before opset 13 the input is seen as a matrix: all axes from `axis` on are normalised together.
    touched = _removed(editor, x, [axis] if editor.opset >= 13 else range(axis, rank))
    if not touched:
        return False
    masked = _select_all(editor, x, touched, -_INF)
    if node.op_type != "LogSoftmax":
        editor.nodes.append(_copy(node, masked))
        return True
    raw = editor.fresh(node.output[0])
    editor.nodes.append(_copy(node, masked, raw))
    for a, keep in touched[:-1]:
        raw = editor.select(raw, a - rank, keep, 0.0, like=[x])
    last, keep = touched[-1]
    chosen = editor.select(raw, last - rank, keep, 0.0, like=[x])  # -inf would poison a contraction that follows
    editor.emit("Identity", [chosen], node.output[0])
    return True


def _reduce(node: onnx.NodeProto, editor: Editor) -> bool:
    x = node.input[0]
    touched = _removed(editor, x, reduced_axes(node, editor))
    if not touched:
        return False
    masked = _select_all(editor, x, touched, NEUTRAL[node.op_type])
    if node.op_type != "ReduceMean":
        editor.nodes.append(_copy(node, masked))
        return True
    raw = editor.fresh(node.output[0])
    editor.nodes.append(_copy(node, masked, raw))
    factor = float(np.prod([keep.size / keep.sum() for _, keep in touched]))
    editor.emit("Mul", [raw, editor.constant(np.asarray(factor, editor.dtype(x)))], node.output[0])
    return True


def _lp(node: onnx.NodeProto, editor: Editor) -> bool:
    x = node.input[0]
    rank = editor.rank(x)
    touched = _removed(editor, x, [attribute(node, "axis", -1) % rank])
    if touched:
        editor.nodes.append(_copy(node, _select_all(editor, x, touched, 0.0)))
    return bool(touched)


def reduced_axes(node: onnx.NodeProto, editor: Editor) -> list[int]:
    """Axes that a Reduce* node reduces, counted from the front."""
    rank = editor.rank(node.input[0])
    axes: list[int] = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
    if len(node.input) > 1 and node.input[1]:
        values = editor.value(node.input[1])
        axes = [] if values is None else [int(v) for v in values.reshape(-1)]
    if not axes:
        return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    return [a % rank for a in axes]


def _removed(editor: Editor, x: str, axes: Sequence[int]) -> list[tuple[int, Mask]]:
    found = ((a, editor.keep(x, a)) for a in axes)
    return [(a, keep) for a, keep in found if keep is not None]


def _select_all(editor: Editor, x: str, touched: Sequence[tuple[int, Mask]], fill: float) -> str:
    rank, dtype_of = editor.rank(x), x
    for axis, keep in touched:
        x = editor.select(x, axis - rank, keep, fill, like=[dtype_of])
    return x


FORMULAS: dict[str, Callable[[onnx.NodeProto, Editor], bool]] = {
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Hardmax": _softmax,
    "LpNormalization": _lp,
    **dict.fromkeys(NEUTRAL, _reduce),
    **NORMALIZATIONS,
}


def mask_formula(node: onnx.NodeProto, editor: Editor) -> bool:
    """Emits the masked form of a node; False when the node needs none, and nothing was emitted."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    fused = FUSED.get((domain, node.op_type))
    if fused is not None:
        return fused(node, editor)
    rule = None if domain else FORMULAS.get(node.op_type)
    if rule is None or editor.shape(node.input[0]) is None:  # nothing of an activation that was not measured is removed
        return False
    return rule(node, editor)
