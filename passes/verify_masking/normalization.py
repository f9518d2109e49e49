"""Masked forms of the normalisation operators: sums over kept elements, divisor k, affine part unchanged.

Formulas: LayerNormalization-17, RMSNormalization-23, GroupNormalization-18/21, InstanceNormalization-6,
MeanVarianceNormalization-13 of the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from passes.verify_masking.contractions import attribute
from passes.verify_masking.editor import Array, Editor
from passes.verify_masking.plan import Mask


def _epsilon(node: onnx.NodeProto) -> float:
    return next((float(a.f) for a in node.attribute if a.name == "epsilon"), 1e-5)


class Masked:
    """Masked moments of `x` over `axes`; `mask` broadcasts against x, `factor` is n / k (one, or one per group)."""

    def __init__(self, editor: Editor, x: str, axes: Sequence[int], mask: Mask, factor: Array, like: str) -> None:
        self.editor, self.x, self.axes = editor, x, list(axes)
        self.dtype = editor.dtype(like)
        self.mask = editor.constant(mask)
        self.zero = editor.constant(np.zeros((), self.dtype))
        self.factor = editor.constant(np.asarray(factor, self.dtype))

    def select(self, x: str) -> str:
        return self.editor.emit("Where", [self.mask, x, self.zero])

    def mean(self, x: str) -> str:
        return self.editor.emit("Mul", [self.editor.reduce_mean(self.select(x), self.axes), self.factor])

    def normalize(self, epsilon: float, *, center: bool = True, outputs: Sequence[str] = ()) -> str:
        """(x - mean) / sqrt(var + epsilon), zero where removed; without `center` the root mean square divides.

        `outputs` names the tensors that receive the mean and the inverse deviation, empty names for neither.
        """
        names = [*outputs, "", ""]
        emit = self.editor.emit
        mean = emit("Identity", [self.mean(self.x)], names[0] or None) if center else ""
        centred = self.select(emit("Sub", [self.x, mean]) if center else self.x)
        variance = self.mean(emit("Mul", [centred, centred]))
        stable = emit("Add", [variance, self.editor.constant(np.asarray(epsilon, self.dtype))])
        inverse = emit("Reciprocal", [emit("Sqrt", [stable])], names[1] or None)
        return emit("Mul", [centred, inverse])


def over_axes(node: onnx.NodeProto, editor: Editor, axes: Sequence[int]) -> Masked | None:
    """Masked moments over whole axes, None when none of them lost elements."""
    x = node.input[0]
    rank = editor.rank(x)
    mask, factor, touched = np.ones((1,) * rank, bool), 1.0, False
    for axis in axes:
        keep = editor.keep(x, axis)
        if keep is not None:
            mask = mask & keep.reshape([keep.size if a == axis else 1 for a in range(rank)])
            factor *= keep.size / keep.sum()
            touched = True
    return Masked(editor, x, axes, mask, np.asarray(factor), x) if touched else None


def affine(editor: Editor, y: str, parameters: Sequence[str], output: str) -> None:
    """y * scale (+ bias): the parameters are those after x, an absent one is left out."""
    present = [p for p in parameters if p]
    for op, name in zip(("Mul", "Add"), present, strict=False):
        y = editor.emit(op, [y, name])
    editor.emit("Identity", [y], output)


def _layer(node: onnx.NodeProto, editor: Editor) -> bool:
    rank = editor.rank(node.input[0])
    axes = range(attribute(node, "axis", -1) % rank, rank)
    masked = over_axes(node, editor, axes)
    if masked is None:
        return False
    center = node.op_type == "LayerNormalization"
    y = masked.normalize(_epsilon(node), center=center, outputs=list(node.output[1:3]))
    affine(editor, y, list(node.input[1:3]), node.output[0])
    return True


def _instance(node: onnx.NodeProto, editor: Editor) -> bool:
    rank = editor.rank(node.input[0])
    masked = over_axes(node, editor, range(2, rank))
    if masked is None:
        return False
    y = masked.normalize(_epsilon(node))
    affine(editor, y, [_per_channel(editor, p, rank) for p in node.input[1:3]], node.output[0])
    return True


def _mean_variance(node: onnx.NodeProto, editor: Editor) -> bool:
    rank = editor.rank(node.input[0])
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [0, 2, 3])
    masked = over_axes(node, editor, [a % rank for a in axes])
    if masked is None:
        return False
    editor.emit("Identity", [masked.normalize(0.0)], node.output[0])
    return True


def _group(node: onnx.NodeProto, editor: Editor) -> bool:
    x, scale, bias = node.input[:3]
    shape = editor.shape(x)
    keep = editor.keep(x, 1)
    if shape is None or keep is None:
        return False
    groups = attribute(node, "num_groups", 1)
    mask = keep.reshape(1, groups, -1, 1)
    kept = np.maximum(mask.sum(axis=(2,), keepdims=True), 1)  # a group that leaves as a whole divides by anything
    split = np.asarray([shape[0], groups, shape[1] // groups, -1], np.int64)
    folded = editor.emit("Reshape", [x, editor.constant(split)])
    masked = Masked(editor, folded, [2, 3], mask, shape[1] // groups / kept, x)
    y = masked.normalize(_epsilon(node))
    if editor.shape(scale) == (groups,) and editor.opset < 21:
        y = editor.emit("Add", [editor.emit("Mul", [y, _per_channel(editor, scale, 4)]), _per_channel(editor, bias, 4)])
        parameters: list[str] = []
    else:
        parameters = [_per_channel(editor, p, len(shape)) for p in (scale, bias)]
    back = editor.emit("Reshape", [y, editor.emit("Shape", [x])])
    affine(editor, back, parameters, node.output[0])
    return True


def _per_channel(editor: Editor, name: str, rank: int) -> str:
    """A vector over channels, shaped to broadcast against a tensor of this rank."""
    return editor.emit("Reshape", [name, editor.constant(np.asarray([-1, *(1,) * (rank - 2)], np.int64))])


NORMALIZATIONS: dict[str, Callable[[onnx.NodeProto, Editor], bool]] = {
    "LayerNormalization": _layer,
    "RMSNormalization": _layer,
    "InstanceNormalization": _instance,
    "MeanVarianceNormalization": _mean_variance,
    "GroupNormalization": _group,
}
