"""Random graphs: whatever the channel graph calls prunable, pruning it must equal masking it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_builder import SeededChooser
from hypothesis import HealthCheck, given, settings
from proving import prove_final, prove_groups
from random_graphs import random_feeds, random_model
from strategies import models

from onnxprune import canonicalize
from passes.verify_masking import verify

_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def _prove(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(len(model.graph.node))
    outcome = prove_groups(model, random_feeds(model, rng), rng)
    assert outcome.failure is None, (outcome.failure, {k: np.flatnonzero(~v) for k, v in outcome.keep.items()})


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=_CHECKS)
@given(model=models())
def test_pruned_equals_masked(model: onnx.ModelProto) -> None:
    _prove(model)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=2000, deadline=None, derandomize=True, database=None, suppress_health_check=_CHECKS)
@given(model=models(most=14))
def test_pruned_equals_masked_deep(model: onnx.ModelProto) -> None:
    _prove(model)


@pytest.mark.parametrize("seed", range(12))
def test_canonical_form_computes_the_same_and_prunes_right(seed: int) -> None:
    model = random_model(SeededChooser(seed), most=12)
    rng = np.random.default_rng(seed)
    feeds = random_feeds(model, rng)
    canonical = canonicalize(model)
    assert verify(model, canonical, {}, feeds).ok
    outcome = prove_groups(canonical, feeds, rng, most=2)
    assert outcome.failure is None, (outcome.failure, {k: np.flatnonzero(~v) for k, v in outcome.keep.items()})


@pytest.mark.parametrize("seed", range(10))
def test_compensated_and_shortened_graph(seed: int) -> None:
    """Only models that run at any batch size that they declare: other batches than the generator's are fed here."""
    model = random_model(SeededChooser(seed), most=12, symbolic=False)
    rng = np.random.default_rng(seed)
    verdict = prove_final(canonicalize(model), random_feeds(model, rng), rng)
    assert verdict.ok, verdict


def test_most_random_graphs_have_something_to_prune() -> None:
    """A channel graph that freezes everything would pass all of the above."""
    found = checked = 0
    for seed in range(40):
        model = random_model(SeededChooser(seed))
        rng = np.random.default_rng(seed)
        outcome = prove_groups(model, random_feeds(model, rng), rng)
        assert outcome.failure is None, (seed, outcome.failure)
        found += outcome.groups > 0
        checked += outcome.checked
    assert found >= 28, f"only {found} of 40 graphs have a group"
    assert checked >= 60
