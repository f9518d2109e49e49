"""Replaces an ``If`` whose condition is known by the nodes of the branch taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import AttributeProto

from onnxprune import ir
from onnxprune.ir import attributes
from onnxprune.ir.exporter import graph_proto
from onnxprune.ir.stored import store
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, is_standard


@dataclass(frozen=True)
class InlineConstantIf:
    """Put the branch that a constant condition selects in the place of the ``If``.

    Rewrites:
      1. ``If`` with an initializer as condition becomes the nodes and initializers of ``then_branch`` or
         ``else_branch``; inner names that are taken outside get a number. Nested ``If`` too.
    Requires: constants folded, so that the condition is an initializer.
    Guarantees: bit-equal outputs.
    Leaves alone: conditions that are computed or can be overridden; branches with sparse initializers.
    Options: none.
    References: ONNX operator specification, If; ONNX IR specification, "Nested graphs".
    """

    name: ClassVar[str] = "inline-constant-if"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Inline until no ``If`` with a constant condition is left."""
        total = 0
        while count := _inline_all(model):
            total += count
        return PassResult.of({"if": total})


def _inline_all(model: ir.Model) -> int:
    editor = Editor(model)
    chosen = [(node, branch) for node in model.graph.nodes if (branch := _branch(editor, node)) is not None]
    known = ir.tensors(model) if chosen else {}
    for node, branch in chosen:
        _inline(editor, node, branch, known)
    editor.finish()
    captured = ir.captured(model) if chosen else set()
    for name in captured & known.keys():
        if isinstance(known[name], ir.Constant):
            model.loose[name] = known[name]
    return len(chosen)


def _branch(editor: Editor, node: ir.Node) -> onnx.GraphProto | None:
    if not is_standard(node, "If"):
        return None
    condition = editor.constant(node.inputs[0])
    if condition is None or condition.size != 1:
        return None
    value = node.attrs.get("then_branch" if condition.reshape(-1)[0] else "else_branch")
    if isinstance(value, ir.Body):
        graph = graph_proto(value)
    elif isinstance(value, AttributeProto) and not value.ref_attr_name:
        graph = value.g
    else:
        return None
    return None if graph.sparse_initializer else graph


def _inline(editor: Editor, node: ir.Node, branch: onnx.GraphProto, known: dict[str, ir.Variable]) -> None:
    inner = [tensor.name for tensor in branch.initializer]
    inner += [name for item in branch.node for name in item.output if name]
    names = {name: editor.new_name(name, from_subgraph=True) for name in inner}
    tensors: dict[str, ir.Variable | ir.Constant] = {"": ir.Variable("")}
    for initializer in branch.initializer:
        tensors[initializer.name] = ir.Constant(names[initializer.name], store(initializer))

    def tensor(name: str) -> ir.Variable | ir.Constant:
        if not name:
            return ir.Variable("")
        if name not in tensors:
            tensors[name] = ir.Variable(names[name]) if name in names else known[name]
        return tensors[name]

    for item in branch.node:
        attrs = {entry.name: attributes.read(renamed(entry, names)) for entry in item.attribute}
        inputs, outputs = [tensor(name) for name in item.input], [tensor(name) for name in item.output]
        made = ir.Node(item.op_type, item.name, attrs, inputs, outputs, item.domain or None)
        if item.overload:
            made.extras = onnx.NodeProto(overload=item.overload)
        editor.insert_before(node, made)
    outer = list(node.outputs)
    editor.remove(node)
    for output, info in zip(outer, branch.output, strict=True):
        if output.name:
            _connect(editor, node, tensor(info.name), output)
    known.update({item.name: item for item in tensors.values() if item.name})


def _connect(editor: Editor, anchor: ir.Node, source: ir.Variable | ir.Constant, output: ir.Variable) -> None:
    """Let ``output`` hold ``source``, through an Identity that a later pass removes where it can."""
    editor.insert_before(anchor, ir.Node("Identity", "", {}, [source], [output]))


def renamed(attribute: AttributeProto, names: Mapping[str, str]) -> AttributeProto:
    """Return a copy of ``attribute`` in whose subgraphs captured tensors are renamed; inner names hide outer ones."""
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    for graph in (copy.g, *copy.graphs) if copy.HasField("g") or copy.graphs else ():
        _rename(graph, names)
    return copy


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    hidden = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    hidden |= {tensor.values.name for tensor in graph.sparse_initializer}
    hidden |= {name for node in graph.node for name in node.output}
    visible = {old: new for old, new in names.items() if old not in hidden and old != new}
    if not visible:
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = visible.get(name, name)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, visible)
    for info in graph.output:
        info.name = visible.get(info.name, info.name)
