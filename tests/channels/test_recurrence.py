"""Recurrent operators: hidden units leave gates, states and consumers together, unless a state leaves the model."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import channels, ir
from onnxprune.channels import links_of
from passes.structured_pruning.apply import delete
from passes.verify_masking.execution import run_float64
from passes.verify_masking.masked import masked_original
from passes.verify_masking.plan import plan_of

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(n, op: str, x: str, size: int, hidden: int, *rest: str, dirs: int = 1, count: int = 1, **attributes):
    """A recurrent node with biases; `rest` are the operands from the sequence lengths on."""
    gates = GATES[op]
    w, r = n.weight(dirs, gates * hidden, size), n.weight(dirs, gates * hidden, hidden)
    if dirs == 2:
        attributes["direction"] = "bidirectional"
    b = n.weight(dirs, 2 * gates * hidden)
    return n.ops(op, count, x, w, r, b, *rest, hidden_size=hidden, **attributes)


def hidden_groups(model: ir.Model) -> list[channels.Group]:
    return [group for group in channels.analyze(model).groups if group.kind == "hidden"]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("dirs", [1, 2])
def test_two_layers_and_a_classifier(net, prove, op, dirs):
    n = net()
    x = n.input("T", 2, 5)
    for size in (5, 6 * dirs):
        y = layer(n, op, x, size, 6, dirs=dirs)[0]
        x = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), n.ints(0, 0, -1))
    model = n.model(n.op("Relu", n.linear(x, 6 * dirs, 3)))
    first, second = hidden_groups(model)
    assert (first.width, second.width) == (6, 6)
    pruned = prove(model, masks={first.name: np.arange(6) < 4, second.name: np.arange(6) != 2}, T=4)
    nodes = [node for node in pruned.graph.nodes if node.op == op]
    assert [node.attrs["hidden_size"] for node in nodes] == [4, 5]
    assert nodes[1].inputs[1].shape == (dirs, GATES[op] * 5, 4 * dirs)
    prove(model, T=4)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_lstm_with_everything(net, prove, direction):
    """Lengths, both first states, peepholes, clipped cells; all three outputs are used."""
    n = net()
    x = n.input(4, 2, 5)
    lengths = n.constant(np.array([4, 2], np.int32))
    rest = [lengths, n.weight(1, 2, 6), n.weight(1, 2, 6), n.weight(1, 18)]
    y, h, c = layer(n, "LSTM", x, 5, 6, *rest, count=3, clip=2.0, input_forget=0, direction=direction)
    y = n.linear(n.op("Squeeze", y, n.ints(1)), 6, 3)
    last = n.linear(n.op("Squeeze", n.op("Add", h, c), n.ints(0)), 6, 3)
    model = n.model(n.op("Relu", n.op("Add", y, last)))
    assert [group.width for group in hidden_groups(model)] == [6]
    prove(model)


@pytest.mark.parametrize("reset", [0, 1])
def test_gru_reset_forms(net, prove, reset):
    n = net()
    _, h = layer(n, "GRU", n.input(4, 2, 5), 5, 6, count=2, linear_before_reset=reset, dirs=2)
    flat = n.op("Reshape", n.op("Transpose", h, perm=[1, 0, 2]), n.ints(0, -1))
    model = n.model(n.op("Relu", n.linear(flat, 12, 3)))
    prove(model)


def test_input_of_a_recurrent_layer_is_a_contraction(net, prove):
    n = net()
    x = n.op("Tanh", n.linear(n.input(4, 2, 5), 5, 8, name="in"))
    model = n.model(n.linear(n.op("Squeeze", layer(n, "GRU", x, 8, 6)[0], n.ints(1)), 6, 3))
    graph = channels.analyze(model)
    assert {group.name: group.kind for group in graph.groups} == {"in:1": "neuron", "w1:1": "hidden"}
    prove(model, graph)


@pytest.mark.parametrize("state", ["h", "c"])
def test_states_that_enter_or_leave_the_model_are_pinned(net, state):
    """A recurrent step that is called again and again: the caller keeps the state."""
    n = net()
    x, first = n.input(1, 1, 5), n.input(1, 1, 6, name="state")
    rest = ["", first, ""] if state == "h" else ["", "", first]
    y, _, last = layer(n, "LSTM", x, 5, 6, *rest, count=3)
    model = n.model(n.op("Relu", n.linear(n.op("Squeeze", y, n.ints(1)), 6, 3)))
    graph = channels.analyze(model)
    assert not graph.groups
    assert "graph input state" in [frozen.reason for frozen in graph.frozen]
    m = net()
    y, _, last = layer(m, "LSTM", m.input(1, 1, 5), 5, 6, count=3)
    model = m.model(m.op("Relu", m.linear(m.op("Squeeze", y, m.ints(1)), 6, 3)), last)
    graph = channels.analyze(model)
    assert not graph.groups
    assert f"graph output {last}" in [frozen.reason for frozen in graph.frozen]


@pytest.mark.parametrize("op", GATES)
def test_batchwise_layout(net, op):
    """layout=1, which ONNX Runtime does not run: both models are computed by onnx's reference evaluator."""
    n = net()
    x = n.op("Tanh", n.linear(n.input(2, 4, 5), 5, 8))
    y, h = layer(n, op, x, 8, 6, count=2, layout=1)
    y = n.linear(n.op("Squeeze", y, n.ints(2)), 6, 3)
    model = n.model(n.op("Relu", n.op("Add", y, n.linear(h, 6, 3))))
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [8, 6]
    removed = graph.removals({group.name: np.arange(group.width) % 3 > 0 for group in graph.groups})
    small = model.copy()
    delete(small, removed)
    shapes = {name: (tuple(t.shape), np.dtype(t.dtype)) for name, t in ir.tensors(model).items()}
    masked = masked_original(ir.to_proto(model), plan_of(removed), shapes)
    feeds = [{"x": np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)}]
    (expected,), (actual,) = (run_float64(proto, feeds) for proto in (masked, ir.to_proto(small)))
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-9)


def test_weights_that_do_not_fit_are_a_barrier(net):
    n = net()
    model = n.model(n.op("GRU", n.input(3, 2, 5), n.weight(1, 8, 5), n.weight(1, 9, 3), hidden_size=3))
    assert "does not fit" in links_of(model.graph.nodes[0], 17).barrier
