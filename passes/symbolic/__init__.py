"""Symbolic shapes and integer values: sizes that depend on dynamic dimensions, kept as polynomials over them."""

from __future__ import annotations

from passes.symbolic.analysis import Facts, analyze
from passes.symbolic.dims import Dim, Size, compare, divide, symbol

__all__ = ["Dim", "Facts", "Size", "analyze", "compare", "divide", "symbol"]
