"""The primitives of graph editing that passes rely on."""

from __future__ import annotations

import numpy as np
import onnx.parser

from onnxprune import ir
from passes.edits import Editor, is_standard

WITH_IF = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
    a = Relu(x)
    y = If (c) <then_branch = t () => (float[2] inner) { inner = Add(a, w) },
                else_branch = e () => (float[2] other) { other = Neg(x) }>
}"""


def load(text):
    text = text if text.startswith("<") else f'<ir_version: 8, opset_import: ["" : 17]> {text}'
    return ir.from_proto(onnx.parser.parse_model(text))


def test_names_are_new_to_the_graph_and_its_subgraphs():
    editor = Editor(load(WITH_IF))
    assert [editor.new_name(stem) for stem in ("a", "a", "inner", "free")] == ["a_1", "a_2", "inner_1", "free"]
    assert editor.new_name("other", from_subgraph=True) == "other"
    assert editor.fixed == {"y", "a", "w", "x"}


def test_what_a_subgraph_reads_has_more_than_one_use():
    model = load(WITH_IF)
    editor = Editor(model)
    assert editor.only_use(ir.tensors(model)["a"]) is None


def test_new_nodes_take_their_place_in_order():
    model = load(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[2] x) => (float[2] y) { a = Exp(x) y = Neg(a) }'
    )
    editor = Editor(model)
    first, last = model.graph.nodes
    middle = editor.new_variable("m", first.outputs[0])
    editor.insert_before(last, ir.Node("Relu", "", {}, [first.outputs[0]], [middle]))
    last.inputs[0] = middle
    tail = ir.Variable("t", np.float32, [2])
    editor.insert_after(last, ir.Node("Abs", "", {}, [last.outputs[0]], [tail]))
    editor.finish()
    assert [node.op for node in model.graph.nodes] == ["Exp", "Relu", "Neg", "Abs"]
    assert is_standard(first, "Exp", "Log") and not is_standard(first, "Log")


def test_an_initializer_on_both_sides_of_a_node_is_replaced_on_both():
    model = load(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[2] x) => (float[2] y) { a = Exp(x) y = Add(a, a) }'
    )
    editor = Editor(model)
    old = ir.tensors(model)["a"]
    editor.redirect(old, model.graph.inputs[0])
    assert [tensor.name for tensor in model.graph.nodes[1].inputs] == ["x", "x"]
    assert not old.outputs
