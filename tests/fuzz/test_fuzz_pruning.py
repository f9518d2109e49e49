"""Open-ended fuzzing for ONNXPRUNE_FUZZ_SECONDS (default 60) from seed ONNXPRUNE_FUZZ_SEED (default: the time).

A failure names its seed; `ONNXPRUNE_FUZZ_SEED=<seed> ONNXPRUNE_FUZZ_SECONDS=0` runs that one graph again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from graph_builder import SeededChooser
from nesting import SHAPES, nested_feeds, random_nested
from proving import prove_final, prove_groups
from random_graphs import random_feeds, random_model

from onnxprune import canonicalize
from passes.verify_masking import verify


def _seeds(share: float) -> Iterator[int]:
    """Seeds until this share of the budget is spent; at least one."""
    budget = float(os.environ.get("ONNXPRUNE_FUZZ_SECONDS", "60"))
    seed = int(os.environ.get("ONNXPRUNE_FUZZ_SEED", str(int(time.time()) % 1_000_000 * 1000)))
    end = time.monotonic() + budget * share
    yield seed
    while time.monotonic() < end:
        seed += 1
        yield seed


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_fuzz_pruned_equals_masked() -> None:
    for seed in _seeds(0.4):
        rng = np.random.default_rng(seed)
        model = random_model(SeededChooser(seed), most=14)
        outcome = prove_groups(model, random_feeds(model, rng), rng, most=6)
        assert outcome.failure is None, f"seed {seed}: {outcome.failure}"


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_fuzz_networks_inside_subgraphs() -> None:
    for seed in _seeds(0.2):
        rng = np.random.default_rng(seed)
        model = random_nested(SeededChooser(seed), SHAPES[seed % len(SHAPES)], most=9)
        feeds = nested_feeds(model, rng, bool(seed // len(SHAPES) % 2))
        canonical = canonicalize(model)
        assert verify(model, canonical, {}, feeds).ok, f"seed {seed}"
        outcome = prove_groups(canonical, feeds, rng, most=3)
        assert outcome.failure is None, f"seed {seed}: {outcome.failure}"


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_fuzz_canonical_compensated_and_shortened() -> None:
    for seed in _seeds(0.4):
        rng = np.random.default_rng(seed)
        model = random_model(SeededChooser(seed), most=14, symbolic=False)
        feeds = random_feeds(model, rng)
        canonical = canonicalize(model)
        assert verify(model, canonical, {}, feeds).ok, f"seed {seed}"
        verdict = prove_final(canonical, feeds, rng)
        assert verdict.ok, f"seed {seed}: {verdict}"
