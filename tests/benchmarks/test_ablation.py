"""The table of ablation compares each row with the one that has every ingredient."""

from __future__ import annotations

from typing import Any

from ablation import NOTHING, from_report, row_id, table
from machine_facts import MACHINE

from onnxprune.search.options import INGREDIENTS


def _row(without: str, after: float | None, **changes: Any) -> dict[str, Any]:
    row = {
        "id": row_id("net", "0.5x", without, "normal", 0),
        "model": "net",
        "target": "0.5x",
        "without": without,
        "effort": "normal",
        "seed": 0,
        "machine": MACHINE,
        "seconds": 12.0,
        "before": 0.95,
        "after": after,
        "error": None,
        "met": True,
        "ratio": 0.49,
        "landing": 0.98,
        "floor": None,
        "drift": 0.1,
    }
    return {**row, **changes}


def test_rows_are_compared_with_the_whole_search() -> None:
    rows = [_row(NOTHING, 0.93), _row("depth", 0.91), _row("quantization", None, met=False, floor=0.6, error="no")]
    lines = table({row["id"]: row for row in rows}).splitlines()
    assert "| net | 0.5x | nothing | 0.9300 | 0.0200 | - | 0.100 | 0.490 | 0.980 | 12 | yes |" in lines
    assert "| net | 0.5x | depth | 0.9100 | 0.0400 | 0.0200 | 0.100 | 0.490 | 0.980 | 12 | yes |" in lines
    assert any("| floor 0.600 |" in line and line.endswith("| no |") for line in lines)
    assert "- net without quantization: no" in lines


def test_other_targets_and_seeds_are_not_compared() -> None:
    rows = [_row(NOTHING, 0.93, id="a", target="0.4x"), _row("depth", 0.91)]
    assert "| 0.0400 | - |" in table({row["id"]: row for row in rows})


def test_a_report_may_say_nothing() -> None:
    assert from_report(None, 0.5)["met"] is False
    facts = from_report({"met": True, "speedup": {"cpu": {"ratio": 0.45}}, "drift": {"value": 0.2}}, 0.5)
    assert (facts["landing"], facts["drift"], facts["floor"]) == (0.9, 0.2, None)


def test_every_ingredient_has_a_row_of_its_own() -> None:
    assert len({row_id("net", "0.5x", name, "normal", 0) for name in (NOTHING, *INGREDIENTS)}) == 1 + len(INGREDIENTS)
