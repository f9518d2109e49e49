"""Input products of recurrent layers in the open: the same function, weights that can be fitted, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxprune import channels, ir
from onnxprune.channels.rules.recurrence import GATES
from onnxprune.pipeline import PassContext
from onnxprune.stats import Feeds, collect, model_drift, products, run
from passes.structured_pruning import build_levels, compensate, keep_mask, prune, recurrent
from passes.structured_pruning.structured import StructuredPruning

STEPS, FEATURES, WIDE, HIDDEN, OUT = 6, 8, 16, 7, 3


@dataclass(frozen=True)
class Form:
    """One way to write a recurrent layer."""

    op: str
    directions: int = 1
    bias: bool = True
    layout: int = 0

    def model(self, layers: int = 1) -> ir.Model:
        """Product, Relu, recurrent layers, product; samples are axis 0 (one a call) or 1."""
        rng = np.random.default_rng(0)
        weights: dict[str, np.ndarray] = {"a": rng.standard_normal((FEATURES, WIDE)) / 2}
        nodes = [helper.make_node("MatMul", ["x", "a"], ["wide"]), helper.make_node("Relu", ["wide"], ["read"])]
        read, columns, rows = "read", WIDE, GATES[self.op] * HIDDEN
        for k in range(layers):
            weights[f"w{k}"] = rng.standard_normal((self.directions, rows, columns)) / np.sqrt(columns)
            weights[f"r{k}"] = rng.standard_normal((self.directions, rows, HIDDEN)) / np.sqrt(HIDDEN)
            weights[f"b{k}"] = rng.standard_normal((self.directions, 2 * rows)) / 4
            inputs = [read, f"w{k}", f"r{k}", *([f"b{k}"] if self.bias else [])]
            more = {"layout": 1} if self.layout else {}
            way = "bidirectional" if self.directions == 2 else "forward"
            nodes.append(helper.make_node(self.op, inputs, [f"y{k}"], hidden_size=HIDDEN, direction=way, **more))
            if not self.layout:
                nodes.append(helper.make_node("Transpose", [f"y{k}"], [f"t{k}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"y{k}" if self.layout else f"t{k}", "flat"], [f"h{k}"]))
            read, columns = f"h{k}", self.directions * HIDDEN
        weights["u"] = rng.standard_normal((columns, OUT))
        nodes.append(helper.make_node("MatMul", [read, "u"], ["z"]))
        constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
        constants.append(numpy_helper.from_array(np.array([0, 0, -1]), "flat"))
        shape = ("n", STEPS) if self.layout else (STEPS, "n")
        info = helper.make_tensor_value_info
        ends = info("x", 1, [*shape, FEATURES]), info("z", 1, [*shape, OUT])
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
        model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
        ir.infer_shapes(model)
        return model


FORMS = [
    *(Form(op, directions) for op in GATES for directions in (1, 2)),
    Form("LSTM", bias=False),
    Form("GRU", 2, bias=False),
]


def samples(model: ir.Model, count: int = 48, seed: int = 1) -> Feeds:
    """Inputs of three dimensions within eight, so that some of the wide units can stand for the others."""
    rng, mixed = np.random.default_rng(seed), np.random.default_rng(9).standard_normal((3, FEATURES))
    x = (rng.standard_normal((count, STEPS, 3)) @ mixed).astype(np.float32)
    return Feeds.from_arrays({"x": x if model.graph.inputs[0].shape[0] == "n" else x.swapaxes(0, 1)}, model)


def outputs(model: ir.Model, feeds: Feeds) -> np.ndarray:
    return np.concatenate([call["z"].reshape(-1) for call in run(model, feeds)])


def halved(model: ir.Model, kind: str) -> tuple[ir.Model, dict[tuple[str, int], np.ndarray]]:
    """Without half of the units of the groups of a kind, and what has left."""
    graph = channels.analyze(model)
    curves = build_levels(model, graph, samples(model), "obs")
    keep = {
        g.name: keep_mask(curves[g.name], g.width // 2)
        for g in graph.groups
        if (g.kind == "hidden") == (kind == "hidden")
    }
    assert keep
    small = model.copy()
    prune(small, graph, keep)
    return small, dict(graph.removals(keep))


def fitted(dense: ir.Model, small: ir.Model, removed: dict[tuple[str, int], np.ndarray]) -> ir.Model:
    """The open form of a small model, compensated."""
    form = recurrent.opened(small.copy())
    compensate(recurrent.opened(dense), form, recurrent.slices(dense, removed), samples(dense))
    return form


@pytest.mark.parametrize("form", [*FORMS, Form("LSTM", layout=1)], ids=str)
def test_the_open_form_is_the_same_function(form: Form) -> None:
    model = form.model(layers=2)
    if form.layout:  # ONNX Runtime has no kernel for it: shapes are all that can be seen
        shapes = {tensor.name: tensor.shape for tensor in recurrent.opened(model).all_tensors()}
        assert shapes["w0.product"][-1] == GATES[form.op] * HIDDEN
        return
    before, opened = ir.text(model), recurrent.opened(model)
    assert ir.text(model) == before
    assert len(products(opened)) == len(products(model)) + 2
    assert all(tensor.shape is not None for tensor in opened.all_tensors() if tensor.name)
    np.testing.assert_allclose(outputs(opened, samples(model)), outputs(model, samples(model)), rtol=1e-4, atol=1e-5)


def test_nothing_to_open() -> None:
    plain = Form("LSTM").model(layers=0)
    assert recurrent.opened(plain) is plain
    tied = Form("LSTM").model()
    tied.graph.outputs.append(ir.tensors(tied)["w0"])
    assert recurrent.opened(tied) is tied
    named = Form("LSTM").model()
    named.graph.outputs[0].name = "w0.gates"
    assert recurrent.opened(named) is named


@pytest.mark.parametrize("kind", ["hidden", "inputs"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_slices_fit_the_open_form(form: Form, kind: str) -> None:
    model = form.model(layers=2)
    small, removed = halved(model, kind)
    dense, form_of_small = (ir.tensors(recurrent.opened(each)) for each in (model, small))
    for (name, axis), gone in recurrent.slices(model, removed).items():
        if name in dense and isinstance(dense[name].shape[axis], int):
            assert form_of_small[name].shape[axis] == dense[name].shape[axis] - len(gone), name
    assert any(name.endswith(".matrix") for name, _ in recurrent.slices(model, removed))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_fitting_the_product_makes_up_for_inputs_that_left(form: Form) -> None:
    model = form.model()
    small, removed = halved(model, "inputs")
    plain = small.copy()
    compensate(model, plain, removed, samples(model))
    others = samples(model, seed=2)
    with_it, without = (model_drift(model, each, others)["z"] for each in (fitted(model, small, removed), plain))
    assert with_it < 0.6 * without
    assert with_it < 0.25


@pytest.mark.parametrize("kind", ["hidden", "inputs"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_was_fitted_finds_its_way_back(form: Form, kind: str) -> None:
    model = form.model(layers=2)
    small, removed = halved(model, kind)
    opened = fitted(model, small, removed)
    expected = outputs(opened, samples(model))
    recurrent.give_back(small, opened)
    assert not any(tensor.name.endswith((".identity", ".shift")) for tensor in small.all_tensors())
    np.testing.assert_allclose(outputs(small, samples(model)), expected, rtol=1e-3, atol=1e-4)


def test_the_pass_fits_recurrent_layers() -> None:
    model = Form("LSTM").model(layers=2)
    dense, feeds = model.copy(), samples(model)
    nodes = len(model.graph.nodes)
    StructuredPruning(ratio=0.4).run(model, PassContext(feeds=feeds, seed=0))
    assert len(model.graph.nodes) == nodes
    assert ir.parameters(model) < ir.parameters(dense)
    unfitted = dense.copy()
    StructuredPruning(ratio=0.4, compensate=False).run(unfitted, PassContext(feeds=feeds, seed=0))
    others = samples(model, seed=2)
    assert model_drift(dense, model, others)["z"] < 0.7 * model_drift(dense, unfitted, others)["z"]


def test_statistics_of_the_open_form_are_those_of_the_model_and_more() -> None:
    model = Form("GRU").model()
    closed, opened = (collect(each, samples(model), seed=0) for each in (model, recurrent.opened(model)))
    assert set(opened.products) - set(closed.products) == {"w0.product"}
    for key, moments in closed.moments.items():
        np.testing.assert_allclose(opened.moments[key].covariance(), moments.covariance(), rtol=1e-4, atol=1e-6)
