"""Open-ended fuzzing for ONNXPRUNE_FUZZ_SECONDS (default 60) from seed ONNXPRUNE_FUZZ_SEED (default: the time).

A failure names its seed; `ONNXPRUNE_FUZZ_SEED=<seed> ONNXPRUNE_FUZZ_SECONDS=0` runs that one graph again.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from graph_builder import SeededChooser
from proving import prove_groups
from random_graphs import random_feeds, random_model


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_fuzz_pruned_equals_masked() -> None:
    budget = float(os.environ.get("ONNXPRUNE_FUZZ_SECONDS", "60"))
    seed = int(os.environ.get("ONNXPRUNE_FUZZ_SEED", str(int(time.time()) % 1_000_000 * 1000)))
    end, count = time.monotonic() + budget, 0
    while count == 0 or time.monotonic() < end:
        rng = np.random.default_rng(seed)
        model = random_model(SeededChooser(seed), most=14)
        outcome = prove_groups(model, random_feeds(model, rng), rng, most=6)
        assert outcome.failure is None, f"seed {seed}: {outcome.failure}"
        seed, count = seed + 1, count + 1
    print(f"{count} graphs")
