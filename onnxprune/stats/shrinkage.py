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
    variance = np.einsum("gdd->gd", covariance)
    scale = 1 / np.sqrt(np.maximum(variance, 1e-30))
    with np.errstate(invalid="ignore", over="ignore"):  # of columns that overflow nothing finite is left
        r2 = covariance * scale[:, :, None]
        r2 *= scale[:, None, :]
        np.minimum(np.square(r2, out=r2), 1.0, out=r2)
        np.einsum("gdd->gd", r2)[:] = 0
        size = covariance.shape[1]
        seen, fourth = r2.sum((1, 2)), np.einsum("gde,gde->g", r2, r2)
        chance = (size * (size - 1) - 2 * seen + fourth) / max(rows, 1.0)  # the sum of (1 - r^2)^2 / n
        kept = 1 - np.minimum(chance / np.maximum(seen, 1e-30), 1.0)
        found: Array = np.multiply(covariance, kept[:, None, None], out=r2)
        np.einsum("gdd->gd", found)[:] = variance
    return found
