"""What commands print on stdout: rich tables on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.progress import aligned, one_line
from onnxprune.report_text import target_text
from onnxprune.units import time_text

Row = Sequence[str]
Facts = Mapping[str, Any]

_SHOWN_MEMBERS = 3


def say(text: str) -> None:
    """Prints one line."""
    sys.stdout.write(one_line(text) + "\n")


def write_json(value: Any) -> None:
    """Prints strict JSON."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")


def show(rows: Sequence[Row]) -> None:
    """Prints a table whose first row is the heading."""
    if not rows:
        return
    if not sys.stdout.isatty():
        sys.stdout.writelines(line + "\n" for line in aligned(rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(rows[0]):
        table.add_column(Text(one_line(heading)), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console(file=sys.stdout).print(table)


def result_lines(report: Facts, output: Path | None) -> Iterator[str]:
    """Yields what is said below the table: notes, the target, and where the model is."""
    yield from report.get("notes", ())
    asked = target_text(report["target"])
    if asked:
        yield f"target {asked}: {'met' if report['met'] else 'NOT met'}, in {report['seconds']:.0f} s"
    if output is not None:
        yield f"wrote {output}"


def drift_rows(result: Facts) -> list[Row]:
    """Returns the drift of every output, the worst one last."""
    rows: list[Row] = [("output", f"drift ({result['metric']})")]
    rows.extend((name, f"{value:.3g}") for name, value in result["outputs"].items())
    rows.append(("worst", f"{result['value']:.3g}"))
    return rows


def bench_rows(result: Facts) -> list[Row]:
    """Returns one row a model and EP, and the verdict where two models were measured."""
    rows: list[Row] = [("model", "EP", "P50", "P90", "P99", "runs", "change")]
    for entry in result["measurements"]:
        times = [time_text(entry[key] / 1e3) for key in ("p50_ms", "p90_ms", "p99_ms")]
        rows.append((entry["model"], entry["ep"], *times, str(entry["n"]), _verdict(entry.get("speedup"))))
    return rows


def _verdict(speedup: Facts | None) -> str:
    if not speedup:
        return ""
    return f"{speedup['ratio']:.3f}x ({speedup['lower95']:.3f} to {speedup['upper95']:.3f}) {speedup['verdict']}"


def show_analysis(result: Facts) -> None:
    """Prints what `analysis.describe` found: rules, one explanation, or the groups and what is frozen."""
    if result["view"] != "groups":
        for line in result["lines"]:
            say(line)
        return
    groups, frozen = result["groups"], result["frozen"]
    if groups:
        show([("group", "kind", "width", "producers", "consumers", "exact"), *map(_group_row, groups)])
    units = sum(group["width"] for group in groups)
    share = f"{result['frozen_share']:.0%} of the producing axes are frozen"
    say(f"{len(groups)} groups with {units} units can be pruned; {share}")
    show([("frozen because", "axes", "for example"), *((f["reason"], str(f["axes"]), f["example"]) for f in frozen)])


def _group_row(group: Facts) -> Row:
    members = [_some(group[key]) for key in ("producers", "consumers")]
    return (group["name"], group["kind"], str(group["width"]), *members, "yes" if group["exact"] else "no")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_MEMBERS
    return ", ".join(names[:_SHOWN_MEMBERS]) + (f" and {more} more" if more > 0 else "")
