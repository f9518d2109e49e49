"""Weights in other forms than a plain initializer of one node: shared, tied, in Constant nodes, behind operators."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import channels, ir

VOCABULARY, WIDTH = 9, 8


def tokens(n) -> str:
    return n.input(2, 3, name="ids", kind=TensorProto.INT64)


def kinds(model: ir.Model) -> dict[str, tuple[str, int]]:
    return {group.name: (group.kind, group.width) for group in channels.analyze(model).groups}


@pytest.mark.parametrize("computed", [False, True])
def test_embedding_width_can_be_pruned_but_not_the_vocabulary(net, prove, computed):
    """Indices are an input, or computed from one (a padding index that is clamped away)."""
    n = net()
    ids = tokens(n)
    if computed:
        ids = n.op("Max", ids, n.constant(np.array(1, np.int64)))
    x = n.op("Tanh", n.op("Gather", n.weight(VOCABULARY, WIDTH, name="table"), ids))
    model = n.model(n.op("Relu", n.linear(x, WIDTH, 4)))
    assert kinds(model) == {"table:1": ("embedding", WIDTH)}
    pruned = prove(model)
    assert ir.tensors(pruned)["table"].shape[0] == VOCABULARY


def test_padding_written_as_a_mask(net, prove):
    """Rows of the padding index are zeroed behind the table, by Where or by a product with a cast mask."""
    n = net()
    ids = tokens(n)
    x = n.op("Gather", n.weight(VOCABULARY, WIDTH, name="table"), ids)
    real = n.op("Unsqueeze", n.op("Greater", ids, n.constant(np.array(0, np.int64))), n.ints(2))
    x = n.op("Where", real, x, n.constant(np.zeros((), np.float32)))
    x = n.op("Mul", x, n.op("Cast", real, to=TensorProto.FLOAT))
    model = n.model(n.op("Relu", n.linear(x, WIDTH, 4)))
    assert kinds(model) == {"table:1": ("embedding", WIDTH)}
    prove(model)


def test_embeddings_that_are_added_lose_the_same_columns(net, prove):
    n = net()
    words = n.op("Gather", n.weight(VOCABULARY, WIDTH, name="words"), tokens(n))
    places = n.op("Gather", n.weight(5, WIDTH, name="places"), n.ints(0, 1, 2))
    model = n.model(n.op("Relu", n.linear(n.op("Add", words, places), WIDTH, 4)))
    assert kinds(model) == {"words:1": ("embedding", WIDTH)}
    prove(model)


@pytest.mark.parametrize("form", ["Gemm", "Transpose", "stored twice"])
def test_tied_embedding_and_output(net, prove, form):
    """The table is the output's weight too: rows are the vocabulary on both ends, columns the width on both."""
    n = net()
    table = n.weight(VOCABULARY, WIDTH, name="table")
    x = n.op("Gather", table, tokens(n))
    x = n.op("Add", x, n.op("Relu", n.linear(n.op("Relu", n.linear(x, WIDTH, 6, name="up")), 6, WIDTH)))
    if form == "Gemm":
        flat = n.op("Reshape", x, n.ints(6, WIDTH))
        y = n.op("Gemm", flat, table, transB=1)
    elif form == "Transpose":
        y = n.op("MatMul", x, n.op("Transpose", table, perm=[1, 0]))
    else:
        values = numpy_helper.to_array(next(t for t in n.initializers if t.name == "table"))
        y = n.op("MatMul", x, n.constant(np.ascontiguousarray(values.T), "turned"))
    model = n.model(y)
    found = kinds(model)
    assert found["table:1"] == ("embedding", WIDTH) and found["up:1"] == ("neuron", 6)
    pruned = prove(model)
    assert ir.tensors(pruned)["table"].shape[0] == VOCABULARY


@pytest.mark.parametrize("twice", ["MatMul", "Conv"])
def test_one_weight_for_two_nodes(net, prove, twice):
    """A siamese pair: what leaves the weight leaves both branches."""
    n = net()
    shape = (WIDTH, 3) if twice == "Conv" else (3, WIDTH)
    size = (2, 3, 4, 4) if twice == "Conv" else (2, 3)
    w = n.weight(*shape, *([1, 1] if twice == "Conv" else []), name="w")
    ends = [n.op("Relu", n.op(twice, n.input(*size, name=name), w)) for name in ("a", "b")]
    joined = n.op("Concat", *ends, axis=1)
    last = n.conv(joined, 4, 2 * WIDTH) if twice == "Conv" else n.linear(joined, 2 * WIDTH, 4)
    model = n.model(n.op("Relu", last))
    (group,) = channels.analyze(model).groups
    assert group.width == WIDTH
    prove(model)


def behind(n, form: str, w: str) -> str:
    """The weight (8, 4) of a product, behind operators that folding may leave."""
    if form == "Transpose":
        return n.op("Transpose", w, perm=[1, 0])
    if form == "Reshape":
        return n.op("Reshape", w, n.ints(8, 4))
    if form == "Cast":
        return n.op("Cast", w, to=TensorProto.FLOAT)
    if form == "Identity":
        return n.op("Identity", w)
    if form == "Unsqueeze":
        return n.op("Squeeze", n.op("Unsqueeze", w, n.ints(0)), n.ints(0))
    if form == "Mul":  # a learned scale of each output, as weight normalisation is exported
        return n.op("Mul", w, n.weight(1, 4, name="scale"))
    return n.op("Concat", w, n.weight(3, 4, name="more"), axis=0)


STORED = {"Transpose": (4, 8), "Reshape": (2, 4, 4), "Concat": (5, 4)}
WIDTHS = {"Reshape": [4, 4], "Concat": [3, 4, 5]}  # pairs of inputs leave together; each part is a group of its own


@pytest.mark.parametrize("form", ["Transpose", "Reshape", "Cast", "Identity", "Unsqueeze", "Mul", "Concat"])
@pytest.mark.parametrize("in_node", [False, True])
def test_weights_behind_operators(net, prove, form, in_node):
    """Both axes of the weight are prunable: its inputs by the layer before, its outputs by the one behind."""
    n = net()
    shape = STORED.get(form, (8, 4))
    dtype = np.float16 if form == "Cast" else np.float32
    values = (n.rng.standard_normal(shape) * 0.5).astype(dtype)
    if in_node:
        n.nodes.append(helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(values)))
    else:
        n.constant(values, "w")
    x = n.op("Relu", n.linear(n.input(2, 3), 3, 8, name="first"))
    y = n.op("Relu", n.op("MatMul", x, behind(n, form, "w")))
    model = n.model(n.op("Relu", n.linear(y, 4, 3)))
    assert sorted(width for _, width in kinds(model).values()) == WIDTHS.get(form, [4, 8])
    prove(model)
