"""How predictions are judged: by the order that they put plans in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from onnxprune.search.prediction import Pair, rank_correlation


def pairs(predicted: list[float], real: list[float], how: str = "rehearsed") -> list[Pair]:
    return [Pair(p, r, how) for p, r in zip(predicted, real, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_spearmans_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, real = rng.integers(0, 6, 12).tolist(), rng.integers(0, 6, 12).tolist()
    assert rank_correlation(pairs(predicted, real)) == pytest.approx(spearmanr(predicted, real).statistic)


def test_order_alone_counts() -> None:
    assert rank_correlation(pairs([1, 2, 3], [0.1, 10, 1000])) == pytest.approx(1)
    assert rank_correlation(pairs([1, 2, 3], [3, 2, 1])) == pytest.approx(-1)


def test_kinds_are_not_mixed() -> None:
    rehearsed = pairs([1, 2, 3], [5, 6, 7])
    assert rank_correlation([*rehearsed, *pairs([1, 3], [9, 0.1], "finished")]) == pytest.approx(1)


def test_too_little_to_say() -> None:
    assert rank_correlation([]) is None
    assert rank_correlation(pairs([1], [2])) is None
    assert rank_correlation(pairs([1, 1], [2, 3])) is None
