"""What the model says about its inputs: dtype, sizes, and what integers in them mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir

_PASSES_VALUES = frozenset(
    {"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Expand", "Slice", "Concat"}
)


@dataclass(frozen=True)
class InputSpec:
    """One graph input. ``shape``: None where the rank is unknown; a size is None where it is dynamic. ``dtype``: None
    where unknown.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None

    @property
    def rank(self) -> int:
        return len(self.shape or ())


def specifications(model: ir.Model) -> list[InputSpec]:
    """Of every input that a caller must feed (overridable initializers are not among them), in graph order."""
    return [InputSpec(tensor.name, _dtype(tensor), _shape(tensor)) for tensor in ir.feed_inputs(model)]


def _dtype(tensor: gs.Tensor) -> np.dtype | None:
    if tensor.dtype is None:
        return None
    try:
        dtype: np.dtype = np.dtype(tensor.dtype)
        return dtype
    except TypeError:  # an ONNX type that numpy has no name for
        return None


def _shape(tensor: gs.Tensor) -> tuple[int | None, ...] | None:
    if tensor.shape is None:
        return None
    return tuple(size if isinstance(size, int) and size > 0 else None for size in tensor.shape)


def vocabulary(tensor: gs.Tensor) -> int | None:
    """How many values an integer input may take, from the tables (Gather data, OneHot depth) that it indexes; None
    where it indexes none.
    """
    bounds: list[int] = []
    seen: set[str] = set()
    pending = [tensor]
    while pending:
        current = pending.pop()
        for node in ir.consumers(current):
            bound = _bound(node, current)
            if bound is not None:
                bounds.append(bound)
            elif node.op in _PASSES_VALUES:
                fresh = [out for out in node.outputs if out.name not in seen]
                seen.update(out.name for out in fresh)
                pending.extend(fresh)
    return min(bounds) if bounds else None


def _bound(node: gs.Node, tensor: gs.Tensor) -> int | None:
    """Size of the table that ``tensor`` indexes in this node; None where it is no index."""
    if node.op in ("Gather", "GatherElements") and node.inputs[1].name == tensor.name:
        table, axis = node.inputs[0], ir.attribute(node, "axis", 0)
        values = ir.constant(table)
        shape = values.shape if values is not None else table.shape
        size = shape[axis] if shape is not None else None
        return size if isinstance(size, int) else None
    if node.op == "OneHot" and node.inputs[0].name == tensor.name:
        depth = ir.constant(node.inputs[1])
        return int(depth.reshape(-1)[0]) if depth is not None and depth.size else None
    return None


def mask_inputs(model: ir.Model) -> list[str]:
    """Inputs that may mark padding: of rank 2, integer or boolean, and no index into a table."""
    names = []
    for tensor in ir.feed_inputs(model):
        dtype, shape = _dtype(tensor), _shape(tensor)
        if (
            dtype is not None
            and dtype.kind in "iub"
            and shape is not None
            and len(shape) == 2
            and vocabulary(tensor) is None
        ):
            names.append(tensor.name)
    return names
