"""Digits of reshaped blocks, and how a reshape is cut into blocks."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.channels.factors import Atom, atoms, blocks, digits


@pytest.mark.parametrize(
    ("left", "right", "sizes"),
    [
        ((12,), (3, 4), [3, 4]),
        ((3, 4), (12,), [3, 4]),
        ((2, 6), (4, 3), [2, 2, 3]),
        ((2, 12, 5), (6, 20), [2, 3, 4, 5]),
        ((5,), (5,), [5]),
        ((4, 6), (6, 4), []),
        ((4, 9), (6, 6), []),
    ],
)
def test_atoms(left: tuple[int, ...], right: tuple[int, ...], sizes: list[int]) -> None:
    assert [atom.size for atom in atoms(left, right)] == sizes


def test_digits_name_the_same_element_on_both_sides() -> None:
    left, right = (2, 12, 5), (6, 20)
    flat = np.arange(120)
    for atom in atoms(left, right):
        a = digits(left[atom.left], atom.left_stride, atom.size)[np.unravel_index(flat, left)[atom.left]]
        b = digits(right[atom.right], atom.right_stride, atom.size)[np.unravel_index(flat, right)[atom.right]]
        np.testing.assert_array_equal(a, b)


def test_atom_knows_its_holders() -> None:
    assert atoms((12,), (3, 4)) == [Atom(3, 0, 4, 0, 1), Atom(4, 0, 1, 1, 1)]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (("N", "S", 12), ("N", "S", 3, 4), [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))]),
        (("N", 4, 3, 3), (None, 36), [((1, 2, 3), (1,))]),
        (("N", "S", 12), (None, 3, 4), [((2,), (1, 2))]),
        ((2, 3, "S"), (6, "S"), [((0, 1), (0,)), ((2,), (1,))]),
        ((1, 8), (8,), [((0, 1), (0,))]),
        ((None, 8), (None, 8), [((1,), (1,))]),
        (("N", 8), ("M", 8), [((1,), (1,))]),
        ((2, 3), (6,), [((0, 1), (0,))]),
        ((4, 1, 1), (4,), [((0,), (0,))]),
    ],
)
def test_blocks(left: tuple[object, ...], right: tuple[object, ...], expected: list[object]) -> None:
    assert blocks(left, right) == expected  # type: ignore[arg-type]
