"""Deletes the removed slices of every initializer and rewrites what repeats a size.

Which indices leave which axis comes from the channel graph; deleting them is the same for every tensor. Only operators
that repeat a count need more, and their resize hooks sit beside their rules in `onnxprune.channels.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from onnxprune import channels, ir
from onnxprune.channels.links import AxisKey, Ints
from onnxprune.errors import ModelError


def prune(model: ir.Model, graph: channels.ChannelGraph, keep: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    """Prunes the model in place and refreshes the shapes of its tensors.

    Args:
        model: the model that `graph` was made from, or a copy of it.
        graph: its channel graph.
        keep: bool mask over units by group name; groups that are absent keep all.

    Raises UsageError for masks that do not fit the groups, ModelError when the pruned model would not be consistent.
    """
    delete(model, graph.removals(keep))


def delete(model: ir.Model, removed: Mapping[AxisKey, Ints]) -> None:
    """Deletes these indices (sorted, by tensor and axis) from initializers and activations alike."""
    graphs = ir.graphs(model)
    tensors = ir.every_tensor(model)
    for name, axis in removed:
        if name not in tensors or tensors[name].shape is None or axis >= len(tensors[name].shape):
            raise ModelError(f"{name}:{axis} is not in the model: prune the model that was analysed")
    before = _barriers(model)
    names = set(tensors)
    for graph in graphs:
        _resize(graph, channels.Cut(graph, removed, names))
    _slice(tensors, removed)
    after = _barriers(model)
    for key, reason in after.items():
        if key not in before:
            raise ModelError(f"pruning leaves {key} inconsistent: {reason}")
    ir.infer_shapes(model)


def _resize(graph: ir.Model, cut: channels.Cut) -> None:
    for node in list(graph.graph.nodes):
        hook = channels.hook_for(node)
        if hook is not None and any(tensor.name and cut.touches(tensor) for tensor in (*node.inputs, *node.outputs)):
            hook(node, graph.opset(ir.domain(node)), cut)


def _slice(tensors: Mapping[str, ir.Constant | ir.Variable], removed: Mapping[AxisKey, Ints]) -> None:
    by_tensor: dict[str, dict[int, Ints]] = {}
    for (name, axis), indices in removed.items():
        by_tensor.setdefault(name, {})[axis] = indices
    for name, axes in by_tensor.items():
        tensor = tensors[name]
        if isinstance(tensor, ir.Constant):
            values = tensor.values
            for axis, indices in axes.items():
                values = np.delete(values, indices, axis)
            tensor.values = np.ascontiguousarray(values)
        else:
            shape = list(tensor.shape)
            for axis, indices in axes.items():
                shape[axis] -= len(indices)
            tensor.shape = shape


def _barriers(model: ir.Model) -> dict[str, str]:
    """Nodes whose links are refused, with the reason: a pruned node that newly is one has operands that do not fit."""
    found = {}
    for node in ir.all_nodes(model):
        links = channels.links_of(node, model.opset(ir.domain(node)))
        if links.barrier:
            found[links.node] = links.barrier
    return found
