"""Final weights, after compensation, scattered back into the original's shapes.

A node of the original and a node of the compressed model are the same when their first output has the same name.
Removed positions keep the original's values: the gates hide them, so what they hold cannot matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import ModelError
from passes.verify_masking.editor import Array, Editor
from passes.verify_masking.plan import Mask
from passes.verify_masking.subgraphs import all_nodes

_BIAS_AXIS = {"Conv": 0, "Gemm": 0, "ConvTranspose": 1}  # the axis of the weight that a created bias runs along


@dataclass(frozen=True)
class Edits:
    """What the compressed model changed besides slicing.

    `slots` holds new weights by node key and input slot, `sums` a constant added to a tensor right where it is made.
    """

    slots: Mapping[str, Mapping[int, Array]]
    sums: Mapping[str, Array]


def node_key(node: onnx.NodeProto) -> str:
    """The first non-empty output of a node: its identity across models."""
    return next((name for name in node.output if name), "")


def final_weights(original: onnx.ModelProto, compressed: onnx.ModelProto, editor: Editor) -> Edits:
    """Finds the weights and sums of `compressed` that are not the original's with slices deleted.

    Raises ModelError when a weight does not have the shape that the plan leaves.
    """
    weights = {t.name: t for t in original.graph.initializer}
    finals = {t.name: t for t in compressed.graph.initializer}
    keys = {node_key(node): node for node in all_nodes(original)}
    peers = {node_key(node): node for node in all_nodes(compressed)}
    sums: dict[str, Array] = {}
    for node in all_nodes(compressed):
        found = _inserted_sum(node, keys, peers, finals)
        if found is not None:
            tensor, values, inner = found
            sums[tensor] = sums.get(tensor, 0) + _scatter_like(values, tensor, editor)
            if inner is not None:
                peers[tensor] = inner
    slots: dict[str, dict[int, Array]] = {}
    for key, node in keys.items():
        peer = peers.get(key)
        if peer is None or peer.op_type != node.op_type:
            continue
        for slot, name in enumerate(peer.input):
            fresh = _changed(node, slot, finals.get(name), weights, editor)
            if fresh is not None:
                slots.setdefault(key, {})[slot] = fresh
    return Edits(slots, sums)


def _inserted_sum(
    node: onnx.NodeProto,
    keys: Mapping[str, onnx.NodeProto],
    peers: Mapping[str, onnx.NodeProto],
    finals: Mapping[str, onnx.TensorProto],
) -> tuple[str, Array, onnx.NodeProto | None] | None:
    """(tensor of the original, constant, the node that made it if it was renamed) when `node` is a sum that is new."""
    constants = [name for name in node.input if name in finals]
    others = [name for name in node.input if name not in finals]
    if node.op_type != "Add" or len(constants) != 1 or len(others) != 1:
        return None
    key, source = node_key(node), others[0]
    values = numpy_helper.to_array(finals[constants[0]])
    if key not in keys:
        return (source, values, None) if source in keys else None
    inner = peers.get(source)
    if source not in keys and inner is not None and inner.op_type == keys[key].op_type != "Add":
        return key, values, inner
    return None


def _changed(
    node: onnx.NodeProto,
    slot: int,
    final: onnx.TensorProto | None,
    weights: Mapping[str, onnx.TensorProto],
    editor: Editor,
) -> Array | None:
    """The values of one weight slot in the original's shape, None when they are the original's own."""
    if final is None or not _is_weight(final, node):
        return None
    values = numpy_helper.to_array(final)
    name = node.input[slot] if slot < len(node.input) else ""
    if not name:
        return _created_bias(node, values, editor)
    if name not in weights:
        return None
    old = numpy_helper.to_array(weights[name])
    kept = [editor.keep(name, axis) for axis in range(old.ndim)]
    index = _kept_index(old.shape, kept)
    if old[index].shape != values.shape:
        raise ModelError(f"{name} has shape {values.shape} in the compressed model, the plan leaves {old[index].shape}")
    if np.array_equal(old[index], values, equal_nan=True):
        return None
    full = old.copy()
    full[index] = values
    return full


_T = onnx.TensorProto
_WEIGHTS = (_T.FLOAT, _T.DOUBLE, _T.FLOAT16, _T.BFLOAT16, _T.INT8, _T.UINT8, _T.INT4, _T.UINT4)


def _is_weight(tensor: onnx.TensorProto, node: onnx.NodeProto) -> bool:
    """Whether the element type is one of weights; int32 is one of biases that the node dequantizes, else of indices."""
    bias = tensor.data_type == _T.INT32 and node.op_type in ("DequantizeLinear", "Cast")
    return bias or tensor.data_type in _WEIGHTS


def _created_bias(node: onnx.NodeProto, values: Array, editor: Editor) -> Array:
    """A bias over the original's output channels. Read off the plan for the output, else for the weight."""
    axis = _BIAS_AXIS.get(node.op_type)
    if axis is None:
        raise ModelError(f"the compressed model gives {node_key(node)} ({node.op_type}) a new constant input")
    flags = {a.name: int(a.i) for a in node.attribute if a.type == onnx.AttributeProto.INT}
    if node.op_type == "Gemm" and not flags.get("transB", 0):
        axis = 1
    keep = editor.keep(node_key(node), 1)
    if keep is None:
        keep = editor.keep(node.input[1], axis)
        if keep is not None and node.op_type == "ConvTranspose":
            keep = np.tile(keep, flags.get("group", 1))
    if keep is None:
        return values
    full = np.zeros(keep.size, values.dtype)
    full[keep] = values.reshape(-1)
    return full


def _scatter_like(values: Array, tensor: str, editor: Editor) -> Array:
    """A constant that broadcasts against the pruned tensor, widened to broadcast against the original one."""
    kept: list[Mask | None] = []
    for place in range(values.ndim):
        keep = editor.keep(tensor, place - values.ndim)
        kept.append(keep if values.shape[place] > 1 or (keep is not None and keep.sum() == 1) else None)
    shape = tuple(n if keep is None else keep.size for n, keep in zip(values.shape, kept, strict=True))
    full = np.zeros(shape, values.dtype)
    full[_kept_index(shape, kept)] = values
    return full


def _kept_index(shape: tuple[int, ...], kept: list[Mask | None]) -> tuple[Array, ...]:
    ranges = [np.arange(n) if keep is None else np.flatnonzero(keep) for n, keep in zip(shape, kept, strict=True)]
    return np.ix_(*ranges)
