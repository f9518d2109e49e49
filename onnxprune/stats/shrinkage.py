"""Covariances from few samples: what seems correlated by chance is taken back.

Of 224 samples and 256 columns every column is a combination of the others, whatever they are, so anything may leave and
nothing seems lost. Correlations are therefore shrunk towards zero, by the share that minimises their expected squared
error (Schäfer and Strimmer 2005, Stat. Appl. Genet. Mol. Biol. 4:32), their variance being that of normal numbers, (1 -
r²)² / n. Variances stay as they are.
"""

from __future__ import annotations

import numpy as np

from onnxprune.stats.arrays import Array


def shrunk(covariance: Array, rows: float) -> Array:
    """Covariances (groups, D, D) that stand for what ``rows`` independent rows tell."""
    variance = np.maximum(np.einsum("gdd->gd", covariance), 1e-30)
    r2 = np.minimum(np.square(covariance) / (variance[:, :, None] * variance[:, None, :]), 1.0)
    diagonal = np.eye(covariance.shape[1], dtype=bool)
    r2[:, diagonal] = 1.0  # counts nothing in the sum of variances
    chance = np.square(1 - r2).sum((1, 2)) / max(rows, 1.0)
    seen = np.maximum(r2.sum((1, 2)) - len(diagonal), 1e-30)
    kept = 1 - np.minimum(chance / seen, 1.0)
    found: Array = covariance * np.where(diagonal, 1.0, kept[:, None, None])
    return found
