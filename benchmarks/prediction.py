"""Predicted against measured latency over the reports of many runs: `python benchmarks/prediction.py REPORT.json ...`.

A row a report, and the medians that the project promises: the first prediction within 8 %, and within 3 % after one
correction.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

FIRST, CORRECTED = 0.08, 0.03


def rows(reports: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, int, float, float | None]]:
    """Model, target, scheme, rounds and the two errors of every report that predicted something."""
    for report in reports:
        found = report.get("latency_model")
        if found:
            target = report["target"]
            shown = f"{target['value']:g}x" if target["kind"] == "ratio" else f"{target['value'] * 1e3:g} ms"
            name = Path(report["model"]["path"]).parent.name
            stem = Path(report["model"]["path"]).stem
            model = name if stem == "model" else stem
            yield model, shown, report["scheme"], found["rounds"], found["first_error"], found["corrected_error"]


def table(reports: Iterable[Mapping[str, Any]]) -> str:
    """The rows as Markdown, with the medians of the absolute errors in the last lines."""
    found = list(rows(reports))
    lines = ["| model | target | scheme | rounds | first | corrected |", "|---|---|---|---|---|---|"]
    for model, target, scheme, rounds, first, corrected in found:
        after = "-" if corrected is None else f"{corrected:+.1%}"
        lines.append(f"| {model} | {target} | {scheme} | {rounds} | {first:+.1%} | {after} |")
    for what, errors, limit in (
        ("first", [row[4] for row in found], FIRST),
        ("corrected", [row[5] for row in found if row[5] is not None], CORRECTED),
    ):
        if errors:
            lines.append(
                f"\nmedian error, {what}: {median(map(abs, errors)):.1%} of {len(errors)} (at most {limit:.0%})"
            )
    return "\n".join(lines)


def main() -> None:
    print(table(json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]))


if __name__ == "__main__":
    main()
