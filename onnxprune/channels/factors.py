"""How the axes on two sides of a reshape share their elements: as digits of one mixed-radix number.

A tensor stays rectangular after pruning only if one digit loses values while the others stay whole. So each reshaped
block (a tie between tuples of axes) has as many ways to be pruned as it has atoms, and one of them must be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from onnxprune.channels.links import Dim, Ints, Shape


class Atom(NamedTuple):
    """A digit with `size` values, held by one axis of each side at a stride inside that axis."""

    size: int
    left: int
    left_stride: int
    right: int
    right_stride: int


def atoms(left: Sequence[int], right: Sequence[int]) -> list[Atom]:
    """The digits that two tuples of axis sizes with equal products share, outermost first.

    Empty when the sizes do not factor, as in (4, 6) -> (6, 4): then no axis can lose elements.
    """
    bounds = sorted({*_strides(left), *_strides(right), math.prod(left)})
    if any(high % low for low, high in pairwise(bounds)):
        return []
    found = []
    for low, high in pairwise(bounds):
        a, b = _holder(left, low), _holder(right, low)
        found.append(Atom(high // low, a[0], a[1], b[0], b[1]))
    return found[::-1]


def digits(size: int, stride: int, atom: int) -> Ints:
    """The value of a digit for each element of an axis."""
    return np.arange(size, dtype=np.int64) // stride % atom


def _strides(sizes: Sequence[int]) -> list[int]:
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def _holder(sizes: Sequence[int], stride: int) -> tuple[int, int]:
    """The axis that holds the digit with this stride, and the digit's stride inside the axis."""
    for axis, base in enumerate(_strides(sizes)):
        if base <= stride < base * sizes[axis]:
            return axis, stride // base
    raise ValueError(f"no axis of {tuple(sizes)} has stride {stride}")


def blocks(left: Shape, right: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cuts a reshape into the smallest pairs of axis runs with equal products.

    Works from both ends, so that a dynamic dimension spoils only the block that it is in. Symbols are equal to
    themselves only; an anonymous dimension is equal to nothing. Runs whose sizes are not known to agree are left out.
    """
    head = _run(left, right)
    i = max([a + 1 for run in head for a in run[0]], default=0)
    j = max([b + 1 for run in head for b in run[1]], default=0)
    tail = _run(left[i:][::-1], right[j:][::-1])
    flip = [(tuple(len(left) - 1 - a for a in x[::-1]), tuple(len(right) - 1 - b for b in y[::-1])) for x, y in tail]
    return head + flip[::-1]


def _run(left: Shape, right: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start = (i, j)
        a, b = _product([left[i]]), _product([right[j]])
        i, j = i + 1, j + 1
        while a != b or a is None:
            grow_left = _smaller(a, b)
            if grow_left and i < len(left):
                i += 1
            elif j < len(right) and not grow_left:
                j += 1
            else:
                return found
            a, b = _product(left[start[0] : i]), _product(right[start[1] : j])
            if a is None or b is None:
                return found
        found.append((tuple(range(start[0], i)), tuple(range(start[1], j))))
    return found


Product = tuple[int, tuple[str, ...]]


def _product(dims: Sequence[Dim]) -> Product | None:
    """Coefficient and symbols; None when a dimension is anonymous."""
    if any(dim is None or dim == "" for dim in dims):
        return None
    numbers = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(numbers), tuple(sorted(dim for dim in dims if isinstance(dim, str)))


def _smaller(a: Product | None, b: Product | None) -> bool:
    """Whether the left side has to grow to reach the right one."""
    if a is None or b is None:
        return False
    return (len(a[1]), a[0]) < (len(b[1]), b[0])
