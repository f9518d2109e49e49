"""The drawing: groups, frozen axes, and who feeds whom, in text that any DOT reader takes."""

from __future__ import annotations

import re

import networkx as nx

from onnxprune import channels, ir
from onnxprune.channels.dot import quoted, to_dot

STRING = r'"((?:[^"\\]|\\.)*)"'


def drawn(model: ir.Model) -> str:
    graph = channels.analyze(model)
    return graph.dot(graph.shares(model, ir.shapes_for(model, {"x": [1, 3, 8, 8]})))


def test_groups_and_frozen_axes(net):
    n = net()
    first = n.op("Relu", n.conv(n.input("N", 3, 8, 8), 8, 3, name="first"))
    text = drawn(n.model(n.conv(n.conv(first, 6, 8, name="second"), 5, 6, name="last")))
    labels = dict(re.findall(rf"^  {STRING} \[label={STRING}", text, re.M))
    assert list(labels) == ["first:0", "second:0", "frozen 1"]
    assert labels["first:0"].split("\\n")[:2] == ["first:0", "8 channels"]
    assert labels["frozen 1"] == "last:0\\nfrozen: graph output t3"
    assert re.findall(r"fillcolor=lightgrey.*", text) and text.count("lightgrey") == 1
    assert re.findall(rf"^  {STRING} -> {STRING};$", text, re.M) == [("first:0", "second:0"), ("second:0", "frozen 1")]


def test_axes_that_are_frozen_together_are_one_node_with_edges_of_its_own(net):
    n = net()
    x = n.conv(n.input("N", 3, 8, 8), 8, 3, name="stem")
    inner = n.conv(x, 4, 8, name="in")
    y = n.op("Add", x, n.conv(inner, 8, 4, name="out"))
    text = drawn(n.model(y))
    assert 'label="stem:0 and 1 more\\nfrozen: graph output' in text
    assert re.findall(rf"^  {STRING} -> {STRING};$", text, re.M) == [("in:0", "frozen 1"), ("frozen 1", "in:0")]


def test_any_name_is_escaped():
    name = 'a"b\\c\nd\te\x00→'
    assert quoted(name) == '"a\\"b\\\\c\\nde→"'
    graph = nx.DiGraph()
    graph.add_node(name, label=name, frozen=True)
    graph.add_edge(name, name)
    lines = to_dot(graph).splitlines()
    assert lines[0] == "digraph channels {" and lines[-1] == "}"
    assert re.fullmatch(
        rf"  {STRING} \[label={STRING}, style=filled, fillcolor=lightgrey, fontcolor=dimgrey\];", lines[3]
    )
    assert re.fullmatch(rf"  {STRING} -> {STRING};", lines[4])
