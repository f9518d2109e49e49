"""Random graphs with fused operators, which only ONNX Runtime knows: float32 decides."""

from __future__ import annotations

import numpy as np
import pytest
from fused_steps import random_fused_model
from graph_builder import SeededChooser
from proving import prove_groups
from random_graphs import random_feeds

from onnxprune import canonicalize


def _prove(seed: int, most: int) -> int:
    model = canonicalize(random_fused_model(SeededChooser(seed), most))
    rng = np.random.default_rng(seed)
    outcome = prove_groups(model, random_feeds(model, rng), rng)
    assert outcome.failure is None, (outcome.failure, {k: np.flatnonzero(~v) for k, v in outcome.keep.items()})
    return outcome.groups


@pytest.mark.parametrize("seed", range(40))
def test_pruned_equals_masked(seed: int) -> None:
    _prove(seed, 6)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_pruned_equals_masked_deep(block: int) -> None:
    assert sum(_prove(seed, 12) for seed in range(1000 + 50 * block, 1050 + 50 * block)) > 50
