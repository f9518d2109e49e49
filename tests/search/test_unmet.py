"""Why a target was not met, in one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from onnxprune.api import unmet
from onnxprune.units import parse_target


@pytest.mark.parametrize(
    ("bound", "why"),
    [(1.03, "the 95 % bound of the nearest plan in fresh processes is 1.030 of the target"), (None, "not by enough")],
)
def test_a_bound_that_missed_is_not_that_of_the_lowest_latency(bound: float | None, why: str) -> None:
    work: Any = SimpleNamespace(options=SimpleNamespace(goal=parse_target("0.25x")))
    outcome: Any = SimpleNamespace(missed="", floor=(0.056,), baseline_s=(0.007,), bound=bound)
    text = str(unmet.error(work, outcome))
    assert text.startswith("the target 0.25x could not be proved: the lowest latency measured is 0.056x")
    assert f", but {why}" in text and "\n" not in text
