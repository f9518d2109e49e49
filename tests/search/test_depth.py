"""The order of dropped branches: what a drop costs is what replacing the branch by its mean does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import ir
from onnxprune.search.depth import DropOrder, drop_order, squared
from onnxprune.stats import Feeds, model_drift, run
from passes.block_removal import Branch, branches

Residual = Callable[..., ir.Model]


def ablated(model: ir.Model, gone: list[Branch], feeds: Feeds) -> ir.Model:
    """The model with the channel means of the branches in their place."""
    changed = model.copy()
    nodes = {ir.node_key(node): node for node in changed.graph.nodes}
    for branch in gone:
        add = nodes[branch.add]
        old = add.inputs[branch.operand]
        values = np.concatenate([call[old.name] for call in run(model, feeds, [old.name])])
        mean = values.mean((0, 2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
        add.inputs[branch.operand] = ir.Constant(f"{old.name}_mean", mean)
    return changed


def setting(residual: Residual, blocks: int = 4) -> tuple[ir.Model, list[Branch], Feeds, dict[str, float]]:
    model = residual(blocks=blocks, width=8, inner=8)
    found = branches(model, ir.shapes_for(model, {"x": (1, 3, 8, 8)}))
    assert len(found) == blocks
    return model, found, Feeds.synthetic(model, 32, 0), {branch.name: 1.0 for branch in found}


def test_errors_are_those_of_mean_ablation(residual: Residual) -> None:
    model, found, feeds, saved = setting(residual)
    order = drop_order(model, found, feeds, saved)
    assert order.branches
    for count, error in enumerate(order.error, start=1):
        truth = squared(model_drift(model, ablated(model, list(order.branches[:count]), feeds), feeds))
        assert error == pytest.approx(truth, rel=2e-3)


def test_the_first_drop_is_the_cheapest(residual: Residual) -> None:
    model, found, feeds, saved = setting(residual)
    alone = {b.name: squared(model_drift(model, ablated(model, [b], feeds), feeds)) for b in found}
    order = drop_order(model, found, feeds, saved)
    assert order.branches[0].name == min(alone, key=lambda name: alone[name])


def test_what_a_drop_saves_counts(residual: Residual) -> None:
    model, found, feeds, saved = setting(residual)
    dearest = max(found, key=lambda b: squared(model_drift(model, ablated(model, [b], feeds), feeds)))
    order = drop_order(model, found, feeds, {**saved, dearest.name: 1e6})
    assert order.branches[0].name == dearest.name


def test_a_branch_that_adds_nothing_goes_first_and_for_free(residual: Residual) -> None:
    model, found, feeds, saved = setting(residual)
    weights = ir.initializers(model)
    weights["b2.w"].values = np.zeros_like(weights["b2.w"].values)  # its bias alone is left: the mean says it all
    order = drop_order(model, found, feeds, saved)
    assert order.branches[0].name == found[2].name
    assert order.error[0] < 1e-9


def test_errors_ascend_and_steps_add_up(residual: Residual) -> None:
    model, found, feeds, saved = setting(residual)
    order = drop_order(model, found, feeds, saved)
    assert all(step >= 0 for step in order.steps)
    assert sum(order.steps) == pytest.approx(order.error[-1])
    assert len({branch.name for branch in order.branches}) == len(order.branches)


def test_half_precision(residual: Residual) -> None:
    proto = ir.to_proto(residual(blocks=3, width=8, inner=8))
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    model, plain = ir.from_proto(proto), residual(blocks=3, width=8, inner=8)
    ir.infer_shapes(model)
    found = branches(model, ir.shapes_for(model, {"x": (1, 3, 8, 8)}))
    saved = {branch.name: 1.0 for branch in found}
    order = drop_order(model, found, Feeds.synthetic(model, 16, 0), saved)
    expected = drop_order(plain, found, Feeds.synthetic(plain, 16, 0), saved)
    assert order.branches == expected.branches
    assert order.error == pytest.approx(expected.error, rel=0.1)


def test_the_model_is_left_alone(residual: Residual) -> None:
    model, found, feeds, saved = setting(residual, blocks=2)
    before = ir.text(model)
    drop_order(model, found, feeds, saved)
    assert ir.text(model) == before


def test_nothing_to_drop(residual: Residual) -> None:
    assert drop_order(residual(blocks=0), [], Feeds.synthetic(residual(blocks=0), 2, 0), {}) == DropOrder()


def test_squared_is_the_mean_over_outputs_and_bounded() -> None:
    assert squared({"a": 0.1, "b": 0.3}) == pytest.approx(0.05)
    assert squared({}) == 0.0
    assert squared({"a": float("inf")}) == 1e6
