"""Hypothesis strategies: every structural choice is drawn, so a failing graph shrinks to a small one."""

from __future__ import annotations

from typing import Any

import onnx
from hypothesis import strategies as st
from random_graphs import random_model


class _DrawnChooser:
    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))


@st.composite
def models(draw: Any, most: int = 9) -> onnx.ModelProto:
    """Valid float models of up to `most` steps."""
    return random_model(_DrawnChooser(draw), most)
