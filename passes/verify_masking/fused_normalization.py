"""Masked forms of the normalisations that ONNX Runtime fuses: a sum in front of LayerNormalization or of its RMS form.

Source: onnxruntime/docs/ContribOperators.md. The sum that they also return is not masked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from passes.verify_masking.editor import Editor
from passes.verify_masking.normalization import Masked, affine, over_axes

MICROSOFT = "com.microsoft"


def _epsilon(node: onnx.NodeProto, default: float) -> float:
    return next((float(a.f) for a in node.attribute if a.name == "epsilon"), default)


def _named(node: onnx.NodeProto, slot: int) -> str:
    return node.output[slot] if slot < len(node.output) else ""


def _simplified(node: onnx.NodeProto, editor: Editor) -> bool:
    rank = editor.rank(node.input[0])
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), -1) % max(rank, 1)
    masked = over_axes(node, editor, range(axis, rank))
    if masked is None:
        return False
    y = masked.normalize(_epsilon(node, 1e-5), center=False, outputs=["", _named(node, 1)])
    affine(editor, y, [node.input[1]], node.output[0])
    return True


def _skip(node: onnx.NodeProto, editor: Editor) -> bool:
    """input + skip + bias, normalised over the last axis; the bias comes after beta, which the RMS form lacks."""
    masked = over_axes(node, editor, [editor.rank(node.input[0]) - 1])
    if masked is None:
        return False
    center = node.op_type == "SkipLayerNormalization"
    bias = node.input[3 + center] if len(node.input) > 3 + center else ""
    total = editor.emit("Add", list(node.input[:2]))
    if bias:
        total = editor.emit("Add", [total, bias])
    if _named(node, 3):
        editor.emit("Identity", [total], node.output[3])
    masked.x = total
    y = masked.normalize(_epsilon(node, 1e-12), center=center, outputs=[_named(node, 1), _named(node, 2)])
    affine(editor, y, list(node.input[2 : 3 + center]), node.output[0])
    return True


def _embedding(node: onnx.NodeProto, editor: Editor) -> bool:
    """The node itself makes the sum of the tables' rows."""
    y = node.output[0]
    keep = editor.keep(y, 2)
    if keep is None:
        return False
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    total = _named(node, 2) or editor.fresh(y)
    twin.output[:] = [editor.fresh(y), _named(node, 1) or editor.fresh(y), total]
    editor.nodes.append(twin)
    masked = Masked(editor, total, [2], keep.reshape(1, 1, -1), np.asarray(keep.size / keep.sum()), y)
    affine(editor, masked.normalize(_epsilon(node, 1e-12)), list(node.input[5:7]), y)
    return True


FUSED: dict[tuple[str, str], Callable[[onnx.NodeProto, Editor], bool]] = {
    ("", "SimplifiedLayerNormalization"): _simplified,
    (MICROSOFT, "EmbedLayerNormalization"): _embedding,
    (MICROSOFT, "SimplifiedLayerNormalization"): _simplified,
    (MICROSOFT, "SkipLayerNormalization"): _skip,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip,
}
