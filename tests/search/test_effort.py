"""More effort never means less of any ingredient."""

from __future__ import annotations

from dataclasses import fields

from onnxprune.search.effort import EFFORTS, NORMAL, Effort, effort


def test_every_ingredient_grows_with_effort() -> None:
    rows = [effort(name) for name in ("fast", "normal", "best")]
    assert rows == list(EFFORTS.values()) and rows[1] is NORMAL
    for field in fields(Effort):
        values = [getattr(row, field.name) for row in rows]
        assert field.name == "name" or values == sorted(values), field.name
