"""Builds the masked original: the original graph with every removed channel hidden from whatever sums it away."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx

from passes.verify_masking.editor import Array, Editor, Shapes
from passes.verify_masking.formulas import mask_formula
from passes.verify_masking.gating import gates
from passes.verify_masking.plan import Plan
from passes.verify_masking.subgraphs import inner_graphs
from passes.verify_masking.weights import Edits, final_weights, node_key


def masked_original(
    original: onnx.ModelProto,
    plan: Plan,
    shapes: Shapes,
    *,
    dropped: Collection[str] = (),
    final: onnx.ModelProto | None = None,
    initializers: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    """The original as a ModelProto that ignores what `plan` removes, and the tensors `dropped`.

    Args:
        original: the canonical model before pruning; not changed.
        plan: removed slices.
        shapes: measured shapes and element types of the activations in `measured_tensors(original, plan, dropped)`,
            and what `inner_shapes` knows of those in subgraphs.
        dropped: tensors (branch outputs) whose value counts as zero.
        final: the compressed model, when its weights were compensated: they take the place of the original's.
        initializers: values that replace initializers of the same name and shape.
    """
    editor = Editor(original, plan, shapes)
    edits = None if final is None else final_weights(original, final, editor)
    editor.replace(initializers or {})
    outputs = {t.name for t in original.graph.output}
    for old in original.graph.node:
        _mask(old, edits, editor)
        for name in set(old.output) & set(dropped) - outputs:
            editor.alias(name, _zero(name, editor))
    return editor.finish()


def _mask(old: onnx.NodeProto, edits: Edits | None, editor: Editor) -> None:
    """Emits a node that cannot see what is removed; so are the nodes of its subgraphs."""
    node = onnx.NodeProto()
    node.CopyFrom(old)
    for slot, name in enumerate(node.input):
        node.input[slot] = editor.current(name)
    if edits is not None:
        _reweigh(node, edits, editor)
    for gate in gates(old, editor):
        node.input[gate.slot] = editor.select(
            node.input[gate.slot], gate.axis, gate.keep, like=list(old.input), zero=gate.zero
        )
    for graph in inner_graphs(node):
        outer = editor.enter()
        for inner in graph.node:
            _mask(inner, edits, editor)
        nodes = editor.leave(outer)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
    _emit(node, edits, editor)


def _reweigh(node: onnx.NodeProto, edits: Edits, editor: Editor) -> None:
    for slot, values in edits.slots.get(node_key(node), {}).items():
        node.input.extend([""] * (slot + 1 - len(node.input)))
        node.input[slot] = editor.constant(values, node.input[slot] or f"{node_key(node)}/bias")


def _emit(node: onnx.NodeProto, edits: Edits | None, editor: Editor) -> None:
    """The node, in its masked form if it has one, and the sum that compensation put behind it."""
    key = node_key(node)
    shift = None if edits is None else edits.sums.get(key)
    if shift is not None:
        raw = editor.fresh(key)
        node.output[list(node.output).index(key)] = raw
    if not mask_formula(node, editor):
        editor.nodes.append(node)
    if shift is not None:
        editor.emit("Add", [raw, editor.constant(shift)], key)


def _zero(name: str, editor: Editor) -> str:
    """Zeros of a tensor's shape, also where it holds Inf or NaN."""
    zero = editor.constant(np.zeros((), editor.dtype(name)))
    if editor.opset < 9:
        return editor.emit("Mul", [name, zero])
    return editor.emit("Where", [editor.constant(np.zeros((), bool)), name, zero])


def measured_tensors(original: onnx.ModelProto, plan: Plan, dropped: Collection[str] = ()) -> list[str]:
    """Activations whose shape the rules need: those that lose slices, and the outputs that get zeroed."""
    made = {name for node in original.graph.node for name in node.output if name}
    made.update(t.name for t in original.graph.input)
    constants = {t.name for t in original.graph.initializer}
    return sorted(((plan.tensors() | set(dropped)) & made) - constants)
