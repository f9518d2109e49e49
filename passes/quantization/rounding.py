"""Rounding weights to 8 bits so that the outputs change least, not the weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_DAMPING = 0.01


def rounded(matrix: Array, scale: Array, square: Array, limits: tuple[int, int]) -> Array:
    """Whole multiples of `scale` for `matrix`, within `limits`, that keep matrix x columns close for columns of
    second moments `square`.

    Column by column, by falling energy: each is rounded, and the columns that are left absorb its error (GPTQ, Frantar
    et al., arXiv 2210.17323, eq. 2 and 3, with the Cholesky form of section 3.3). Shapes: matrix (groups, outputs,
    columns), scale (groups, outputs) or like the matrix, square (groups, columns, columns).
    """
    groups, _, size = matrix.shape
    energy = np.einsum("gii->gi", square)
    order = np.argsort(-energy, axis=1, kind="stable")
    rows = np.arange(groups)[:, None]
    left = np.take_along_axis(matrix, order[:, None, :], 2)
    spread = _spread(square[rows[:, :, None], order[:, :, None], order[:, None, :]])
    result = np.zeros_like(left)
    safe = np.where(scale != 0, scale, 1.0)
    if safe.ndim < 3:
        safe = np.broadcast_to(safe[:, :, None], matrix.shape)
    safe = np.take_along_axis(safe, order[:, None, :], 2)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.zeros((*left.shape[:2], end - start))
        for column in range(start, end):
            level = np.clip(np.rint(left[:, :, column] / safe[:, :, column]), *limits)
            result[:, :, column] = level
            error = (left[:, :, column] - level * safe[:, :, column]) / spread[:, column, column][:, None]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : end] -= error[:, :, None] * spread[:, column, None, column + 1 : end]
        left[:, :, end:] -= errors @ spread[:, start:end, end:]
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(result, back[:, None, :], 2)


_BLOCK = 64


def _spread(square: Array) -> Array:
    """Upper Cholesky factor of the inverse of the damped `square`, (groups, columns, columns)."""
    size = square.shape[-1]
    mean = np.einsum("gii->g", square) / size
    damping = np.where(mean > 0, _DAMPING * mean, 1.0)
    damped = square + damping[:, None, None] * np.eye(size)
    # With J the exchange matrix and J A J = L L', the inverse of A is U' U for the upper U = J inv(L) J.
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    inverse = np.linalg.inv(lower)
    return np.ascontiguousarray(inverse[:, ::-1, ::-1])
