"""Sizes as integer polynomials over non-negative symbols, one symbol for each dynamic dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

MAX_TERMS = 16
MAX_DEGREE = 6


class TooComplexError(ArithmeticError):
    """A polynomial grew past the limits; the caller treats the value as unknown."""


class Dim:
    """A polynomial that is not a plain number: ``{(): 1, ("batch",): 12}`` is ``12*batch + 1``.

    Every symbol stands for an integer >= 0. Arithmetic gives back an ``int`` as soon as no symbol is left, so equal
    sizes always compare equal.
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[tuple[str, ...], int]) -> None:
        self.terms = dict(terms)
        self._hash = hash(frozenset(self.terms.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __add__(self, other: Size) -> Size:
        return _sum(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return _sum(self, other, -1)

    def __rsub__(self, other: int) -> Size:
        return _sum(-self, other, 1)

    def __neg__(self) -> Dim:
        return Dim({names: -factor for names, factor in self.terms.items()})

    def __mul__(self, other: Size) -> Size:
        product: dict[tuple[str, ...], int] = {}
        for names, factor in self.terms.items():
            for others, times in _terms(other).items():
                key = tuple(sorted(names + others))
                product[key] = product.get(key, 0) + factor * times
        return _reduced(product)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        ordered = sorted(self.terms.items(), key=lambda item: (-len(item[0]), item[0]))
        return "(" + " + ".join("*".join([str(factor), *names]) for names, factor in ordered) + ")"


Size: TypeAlias = int | Dim


def symbol(name: str) -> Dim:
    """Return the size called ``name``, an unknown integer >= 0."""
    return Dim({(name,): 1})


def compare(a: Size, b: Size) -> int | None:
    """Return -1, 0 or 1 when ``a - b`` has that sign for every value of the symbols, else None."""
    difference = a - b
    if isinstance(difference, int):
        return (difference > 0) - (difference < 0)
    symbolic = [factor for names, factor in difference.terms.items() if names]
    constant = difference.terms.get((), 0)
    if constant > 0 and min(symbolic) > 0:
        return 1
    if constant < 0 and max(symbolic) < 0:
        return -1
    return None


def nonnegative(size: Size) -> bool:
    """Tell whether ``size`` is >= 0 for every value of its symbols."""
    return all(factor >= 0 for factor in _terms(size).values())


def divide(a: Size, b: Size) -> Size | None:
    """Return ``a / b`` when it is exact for all values of the symbols, else None. A size of 0 in ``b`` is undefined."""
    if isinstance(b, int):
        return _divide_by_term(a, (), b) if b else None
    if len(b.terms) == 1:
        ((names, factor),) = b.terms.items()
        return _divide_by_term(a, names, factor)
    return 1 if a == b else None


def floor_divide(a: Size, b: Size) -> Size:
    """Return ``a // b`` for ``a >= 0`` and ``b > 0``: exact, or a symbol named after the quotient."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = divide(a, b)
    return symbol(f"({a!r}//{b!r})") if exact is None else exact


def smallest(a: Size, b: Size) -> Size:
    """Return ``min(a, b)`` for sizes >= 0: one of them when their order is known, else a symbol named after both."""
    order = compare(a, b)
    if order is None:
        if nonnegative(b - a):
            return a
        if nonnegative(a - b):
            return b
        first, second = sorted((repr(a), repr(b)))
        return symbol(f"min[{first};{second}]")
    return a if order <= 0 else b


def _divide_by_term(a: Size, names: tuple[str, ...], factor: int) -> Size | None:
    quotient: dict[tuple[str, ...], int] = {}
    for own, times in _terms(a).items():
        left = list(own)
        for name in names:
            if name not in left:
                return None
            left.remove(name)
        if times % factor:
            return None
        quotient[tuple(left)] = times // factor
    return _reduced(quotient)


def _terms(size: Size) -> Mapping[tuple[str, ...], int]:
    return size.terms if isinstance(size, Dim) else {(): int(size)}


def _sum(a: Size, b: Size, sign: int) -> Size:
    total = dict(_terms(a))
    for names, factor in _terms(b).items():
        total[names] = total.get(names, 0) + sign * factor
    return _reduced(total)


def _reduced(terms: Mapping[tuple[str, ...], int]) -> Size:
    kept = {names: factor for names, factor in terms.items() if factor}
    if not kept:
        return 0
    if list(kept) == [()]:
        return kept[()]
    if len(kept) > MAX_TERMS or max(map(len, kept)) > MAX_DEGREE or sum(len(n) for t in kept for n in t) > 2000:
        raise TooComplexError("size expression")
    return Dim(kept)


def product(sizes: list[Size]) -> Size:
    """Return the product of all sizes."""
    return math.prod(sizes)
