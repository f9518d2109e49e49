"""Levels of a group: where widths lie, and how probes scale the curve of errors."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxprune.search.levels import MOST_LEVELS, Probe, errors, width_choices, widths
from passes.structured_pruning.obs import Curve


def group(width: int, min_keep: int = 1, multiple_of: int = 1, name: str = "g") -> Any:
    return SimpleNamespace(name=name, width=width, min_keep=min_keep, multiple_of=multiple_of)


SIZES = (1, 2, 7, 12, 16, 20, 48, 64, 96, 100, 384, 1536, 4096)


@pytest.mark.parametrize(("width", "multiple"), [(w, m) for w in SIZES for m in (1, 2, 3, 8) if w % m == 0])
def test_widths(width: int, multiple: int) -> None:
    found = widths(group(width, multiple, multiple))
    assert 1 <= len(found) <= MOST_LEVELS
    assert found[-1] == width and list(found) == sorted(set(found))
    assert all(w % multiple == 0 and w >= multiple for w in found[:-1])
    if width >= 16:
        assert all(w % 4 == 0 for w in found[:-1])


def test_wide_groups_step_by_coarse_blocks_and_go_down_to_an_eighth() -> None:
    found = widths(group(512))
    assert found == (64, 128, 192, 256, 320, 384, 448, 512)
    assert widths(group(1536))[0] == 64
    assert widths(group(12))[0] == 1


def test_no_width_below_the_least() -> None:
    assert widths(group(64, min_keep=30))[0] == 32
    assert widths(group(8, min_keep=8)) == (8,)


CURVE = Curve(np.arange(8), np.array([0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0]))


def test_errors_without_probes_are_the_curve() -> None:
    assert errors(CURVE, (2, 4, 8), ()) == (0.4, 0.1, 0.0)


def test_probes_scale_the_curve_and_errors_fall_with_width() -> None:
    found = errors(CURVE, (1, 2, 4, 6, 8), (Probe(4, 1.0), Probe(2, 8.0)))
    assert found[2] == pytest.approx(1.0) and found[1] == pytest.approx(8.0)
    assert found[0] == pytest.approx(16.0)  # beyond the last probe its factor holds
    assert found[-1] == 0.0
    assert all(a >= b for a, b in itertools.pairwise(found))


def test_errors_stay_monotone_when_a_probe_says_otherwise() -> None:
    found = errors(CURVE, (2, 4, 6, 8), (Probe(4, 5.0), Probe(2, 0.5)))
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert np.isfinite(errors(CURVE, (2, 4, 8), (Probe(4, 0.0),))).all()


def test_choices_know_their_branch_and_leave_out_groups_without_a_curve() -> None:
    groups = [group(8, name="a"), group(8, name="b"), group(8, name="c")]
    levels = dict.fromkeys("abc", (4, 8))
    found = width_choices(groups, levels, {"a": CURVE, "b": CURVE}, {"a": [Probe(4, 1.0)]}, {"b": 2})
    assert [(c.group, c.branch) for c in found] == [("a", None), ("b", 2)]
    assert found[0].error == (pytest.approx(1.0), 0.0) and found[1].error == (0.1, 0.0)
