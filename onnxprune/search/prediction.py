"""How well the errors that the search adds up say which plan is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """One plan: its predicted error and what was measured, both squared relative output errors. `how`: finished (fitted
    in full, on held-out samples) or rehearsed (fitted quickly, on probe samples).
    """

    predicted: float
    real: float
    how: str = "finished"


def rank_correlation(pairs: Sequence[Pair]) -> float | None:
    """Spearman's: 1 where predictions order plans as measurements do. Taken over the looks of one kind, that of most
    pairs, since errors of two kinds do not compare. None for less than two of them or where one side is constant.
    """
    kinds = [pair.how for pair in pairs]
    pairs = [pair for pair in pairs if pair.how == max(kinds, key=kinds.count)]
    if len(pairs) < 2:
        return None
    predicted, real = _ranks([pair.predicted for pair in pairs]), _ranks([pair.real for pair in pairs])
    if not np.ptp(predicted) or not np.ptp(real):
        return None
    return float(np.corrcoef(predicted, real)[0, 1])


def _ranks(values: Sequence[float]) -> Floats:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, count = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count + 1) / 2)[place], np.float64)
