"""The order of dropped branches: what a drop costs is what a re-fit of the contractions around it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import ir
from onnxprune.search import depth
from onnxprune.search.depth import FITTED, HOPELESS, LOOK, ROWS_A_COLUMN, DropOrder, drop_order, squared
from onnxprune.stats import Feeds, Reference, model_drift, run
from passes.block_removal import Branch, branches, drop
from passes.structured_pruning.compensate import compensate

Residual = Callable[..., ir.Model]


@dataclass
class Setting:
    """A residual network, its branches, and samples to compare and to fit on."""

    model: ir.Model

    def __post_init__(self) -> None:
        self.found = branches(self.model, ir.shapes_for(self.model, {"x": (1, 3, 8, 8)}))
        self.feeds, self.fitting = Feeds.synthetic(self.model, 32, 0), Feeds.synthetic(self.model, 96, 1)
        self.saved = {branch.name: 1.0 for branch in self.found}

    def order(self, hopeless: float = HOPELESS, look_ahead: int = 3, **saved: float) -> DropOrder:
        saved, options = {**self.saved, **saved}, {"hopeless": hopeless, "look_ahead": look_ahead}
        return drop_order(self.model, self.found, self.feeds, self.fitting, saved, **options)

    def refitted(self, gone: list[Branch]) -> list[float]:
        """The squared drift after each of the drops, one after the other, re-fitted every time."""
        reference = Reference(self.model, self.fitting, rows_a_column=ROWS_A_COLUMN)
        model, errors = self.model.copy(), []
        aliases: dict[str, str] = {}
        for branch in gone:
            new = drop(model, [branch])
            aliases |= new
            options = replace(LOOK, around=frozenset(new.values()), window=FITTED)
            compensate(self.model, model, {}, aliases=aliases, reference=reference, options=options)
            errors.append(squared(model_drift(self.model, model, self.feeds)))
        return errors

    def plain(self, branch: Branch) -> float:
        """The squared drift of a drop without any re-fit."""
        model = self.model.copy()
        drop(model, [branch])
        return squared(model_drift(self.model, model, self.feeds))


@pytest.fixture
def setting(residual: Residual) -> Setting:
    return Setting(residual(blocks=4, width=8, inner=8))


def test_an_order_is_nested_and_ascends(setting: Setting) -> None:
    order = setting.order()
    assert len(order.branches) == len(order.error) == 4
    assert {branch.name for branch in order.branches} == set(setting.saved)
    assert order.error[0] > 0 and list(order.error) == sorted(order.error)
    assert all(step > 0 for step in order.steps)
    assert sum(order.steps) == pytest.approx(order.error[-1])


def test_errors_are_those_of_the_refitted_network(setting: Setting) -> None:
    """In graph order, to which the savings force it: each drop builds on the re-fitted network before it."""
    order = setting.order(**{branch.name: 1e4 ** (4 - place) for place, branch in enumerate(setting.found)})
    truth = setting.refitted(setting.found)
    assert truth == sorted(truth)
    usable = [error for error in truth if error <= HOPELESS]
    assert len(usable) >= 3 and list(order.branches) == setting.found[: len(usable)]
    assert order.error == pytest.approx(usable, rel=2e-3)


def test_the_first_drop_is_the_cheapest_after_a_refit(setting: Setting) -> None:
    alone = {branch.name: setting.refitted([branch])[0] for branch in setting.found}
    order = setting.order()
    assert order.branches[0].name == min(alone, key=lambda name: alone[name])
    assert order.error[0] == pytest.approx(min(alone.values()), rel=2e-3)


def test_the_refit_takes_up_most_of_a_drop(setting: Setting) -> None:
    order = setting.order()
    assert order.error[0] < 0.5 * setting.plain(order.branches[0])


def test_a_branch_that_the_contraction_before_it_can_express_goes_first_and_for_free(linear_first: Residual) -> None:
    setting = Setting(linear_first(blocks=3, width=8, inner=8))
    order = setting.order()
    assert order.branches[0] == setting.found[0]
    assert order.error[0] < 1e-6 < 1e-3 < setting.plain(setting.found[0])
    assert order.error[1] > 1e-5


def test_what_a_drop_saves_counts(setting: Setting) -> None:
    dearest = max(setting.found, key=lambda branch: setting.refitted([branch])[0])
    assert setting.order().branches[0] != dearest
    assert setting.order(**{dearest.name: 1e6}).branches[0] == dearest


def make_even(model: ir.Model, block: int, scale: float) -> None:
    """The branch becomes a sum of absolute values, which no contraction can stand for."""
    weights = ir.initializers(model)
    for name in (f"a{block}.w", f"a{block}.b"):
        half = np.split(weights[name].values, 2)[0]
        half = half - half.mean(tuple(range(1, half.ndim)), keepdims=True) if half.ndim > 1 else np.zeros_like(half)
        weights[name].values = np.concatenate([half, -half])
    half = np.split(weights[f"b{block}.w"].values, 2, axis=1)[0] * np.float32(scale)
    weights[f"b{block}.w"].values = np.concatenate([half, half], 1)
    outputs = np.concatenate([call["logits"] for call in run(model, Feeds.synthetic(model, 64, 2))])
    weights["head.b"].values = weights["head.b"].values - outputs.mean(0)  # else the mean is most of the outputs


def test_hopeless_branches_are_left_out(residual: Residual) -> None:
    model = residual(blocks=3, width=8, inner=8)
    make_even(model, 0, 10.0)
    setting = Setting(model)
    assert setting.refitted([setting.found[0]])[0] > HOPELESS
    for saved in (1.0, 1e9):
        order = setting.order(**{setting.found[0].name: saved})
        assert set(order.branches) == set(setting.found[1:])
        assert order.error[-1] <= HOPELESS
    assert len(setting.order(hopeless=100.0).branches) == 3


def test_half_precision(residual: Residual) -> None:
    plain = Setting(residual(blocks=3, width=8, inner=8))
    proto = ir.to_proto(plain.model)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    order, expected = Setting(model).order(), plain.order()
    assert order.branches == expected.branches
    assert order.error == pytest.approx(expected.error, rel=0.1)


def test_the_model_is_left_alone_and_the_order_is_repeatable(residual: Residual) -> None:
    setting = Setting(residual(blocks=2, width=8, inner=8))
    before = ir.text(setting.model)
    values = {name: tensor.values.copy() for name, tensor in ir.initializers(setting.model).items()}
    first = setting.order()
    assert ir.text(setting.model) == before
    for name, tensor in ir.initializers(setting.model).items():
        np.testing.assert_array_equal(tensor.values, values[name])
    assert setting.order() == first


@pytest.mark.parametrize(("look_ahead", "looks"), [(1, 4 + 4), (3, 4 + 3 + 3 + 2 + 1)])
def test_looking_ahead_less_looks_less(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, look_ahead: int, looks: int
) -> None:
    ran = []
    monkeypatch.setattr(depth, "compensate", lambda *args, **more: ran.append(1) or compensate(*args, **more))
    order = setting.order(hopeless=1e9, look_ahead=look_ahead)
    assert len(ran) == looks
    assert set(order.branches) == set(setting.found)
    assert list(order.error) == sorted(order.error)


def test_progress_is_told_for_every_branch(setting: Setting) -> None:
    said: list[str] = []
    drop_order(setting.model, setting.found, setting.feeds, setting.fitting, setting.saved, said.append)
    assert said[:4] == [f"{place} of 4 alone" for place in (1, 2, 3, 4)]
    assert said[4:] == [f"{place} of 4 ordered" for place in range(4)]


def test_nothing_to_drop(residual: Residual) -> None:
    model = residual(blocks=0)
    feeds = Feeds.synthetic(model, 2, 0)
    assert drop_order(model, [], feeds, feeds, {}) == DropOrder()
    assert DropOrder().steps == ()


def test_squared_is_the_mean_over_outputs_and_bounded() -> None:
    assert squared({"a": 0.1, "b": 0.3}) == pytest.approx(0.05)
    assert squared({}) == 0.0
    assert squared({"a": float("inf")}) == 1e6
