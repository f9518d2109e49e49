"""Probes: one level of one group in the dense network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxprune import channels, ir
from onnxprune.search.depth import squared
from onnxprune.search.probes import Probes, picks
from onnxprune.search.stitched import stitched
from onnxprune.stats import Feeds, collect, model_drift

Residual = Callable[..., ir.Model]


def inner_group(model: ir.Model, block: int) -> channels.Group:
    return next(group for group in channels.analyze(model).groups if (f"a{block}.w", 0) in group.producers)


def test_units_that_are_zero_cost_nothing(residual: Residual) -> None:
    model = residual(blocks=2, width=8, inner=12)
    weights = ir.initializers(model)
    keep = np.arange(12) >= 4
    for name in ("a1.w", "a1.b"):
        values = weights[name].values.copy()
        values[~keep] = 0
        weights[name].values = values
    feeds = Feeds.synthetic(model, 16, 0)
    probe = Probes(model, feeds, collect(model, feeds))
    group = inner_group(model, 1)
    assert probe(group, keep) < 1e-8
    assert probe(group, ~keep) > 1e-4


def test_keeping_everything_changes_nothing_and_the_model_is_left_alone(residual: Residual) -> None:
    model = residual(blocks=2, width=8, inner=12)
    before = ir.text(model)
    feeds = Feeds.synthetic(model, 16, 0)
    probe = Probes(model, feeds, collect(model, feeds))
    for group in channels.analyze(model).groups:
        assert probe(group, np.ones(group.width, bool)) < 1e-8
        probe(group, np.arange(group.width) > 0)
    assert ir.text(model) == before


def test_units_that_recurrent_layers_read_are_not_free(recurrent: ir.Model) -> None:
    """Hidden units of an LSTM that only its own recurrence and a GRU read: no matrix product sees them."""
    feeds = Feeds.synthetic(recurrent, 8, 0)
    probe = Probes(recurrent, feeds, collect(recurrent, feeds))
    group = channels.analyze(recurrent).groups[0]
    assert {contraction.tensor for contraction in group.contractions} == {"r", "v"}
    errors = [probe(group, np.arange(8) < width) for width in (8, 6, 2)]
    assert errors[0] < 1e-8 < 1e-5 < errors[1] < errors[2]


@pytest.mark.parametrize("gone", [2, 6, 9])
def test_the_other_units_take_over(residual: Residual, gone: int) -> None:
    """The probe's error is below that of the same columns set to zero, with the mean or without."""
    model = residual(blocks=1, width=8, inner=12)
    feeds = Feeds.synthetic(model, 64, 0)
    keep = np.arange(12) >= gone
    zeroed = model.copy()
    weight = ir.initializers(zeroed)["b0.w"]
    weight.values = np.where(keep[None, :, None, None], weight.values, 0)
    found = Probes(model, feeds, collect(model, feeds))(inner_group(model, 0), keep)
    assert 0 < found < 0.7 * squared(model_drift(model, zeroed, feeds))


def test_picks_are_about_a_half_and_a_quarter() -> None:
    assert picks((8, 16, 24, 32, 40, 48, 56, 64)) == [24, 40]
    assert picks((4,)) == []
    assert picks((4, 8)) == [4]


def test_a_probe_that_starts_at_the_change_sees_what_the_whole_network_gives(residual: Residual) -> None:
    """In any order of the groups, on outputs before and behind the change."""
    model = residual(blocks=3, width=8, inner=12)
    feeds = Feeds.synthetic(model, 40, 0)
    statistics = collect(model, feeds)
    probe = Probes(model, feeds, statistics)
    groups = channels.analyze(model).groups
    assert len({probe.first_change(group) for group in groups}) > 2
    for group in [*groups, *reversed(groups)]:
        keep = np.arange(group.width) >= group.width // 2
        whole = probe.error(stitched(model, statistics, group, keep))
        assert probe(group, keep) == pytest.approx(whole, rel=1e-4)
        assert whole > 1e-5
