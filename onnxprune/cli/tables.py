"""What commands print on stdout: rich tables on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from onnxprune.cli.fitting import fitted
from onnxprune.progress import aligned, one_line
from onnxprune.report_text import target_text
from onnxprune.units import time_text

Row = Sequence[str]
Facts = Mapping[str, Any]

_SHOWN_MEMBERS = 3
_SHOWN = 0.0005  # smaller shares would read 0.0%
_SHOWN_CAUSES = 12  # rows that nodes without a share of their own may fill up


def say(text: str) -> None:
    """Prints one line."""
    sys.stdout.write(one_line(text) + "\n")


def write_json(value: Any) -> None:
    """Prints strict JSON."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")


def show(rows: Sequence[Row], left: Collection[int] = (0,), loose: Collection[int] = ()) -> None:
    """Prints a table whose first row is the heading. Columns in `left` hold text; on a terminal those in `loose` take
    the width that the others leave.
    """
    if not rows:
        return
    if not sys.stdout.isatty():
        sys.stdout.writelines(line + "\n" for line in aligned(rows, left))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    shown = fitted([[one_line(cell) for cell in row] for row in rows], loose, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(shown[0]):
        side: Literal["left", "right"] = "left" if i in left else "right"
        table.add_column(Text(heading), justify=side, overflow="fold", no_wrap=i > 0)
    for row in shown[1:]:
        table.add_row(*map(Text, row))
    console.print(table)


def result_lines(report: Facts, outputs: Sequence[Path | None]) -> Iterator[str]:
    """Yields what is said below the table: notes, the target, and where the models are."""
    yield from report.get("notes", ())
    asked = target_text(report["target"])
    if asked:
        yield f"target {asked}: {'met' if report['met'] else 'NOT met'}, in {report['seconds']:.0f} s"
    for output in outputs:
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
    if result["groups"]:
        show([_GROUP_HEAD, *map(_group_row, result["groups"])], left=(0, 1, 7, 8), loose=(7, 8))
    say(_summary(result))
    large = [row for row in result["frozen"] if max(filter(None, row["share"].values()), default=0) >= _SHOWN]
    unknown = [row for row in result["frozen"] if row["nodes"] and row not in large]
    few = unknown[: max(_SHOWN_CAUSES - len(large), 0)]
    if large or few:
        show([_FROZEN_HEAD, *map(_frozen_row, large + few)], left=(0, 5), loose=(5,))
    rest = unknown[len(few) :]
    if rest:
        nodes = sum(row["nodes"] for row in rest)
        say(f"and {len(rest)} reasons of {nodes} nodes that keep less than {_SHOWN:.2%} each; --format json has all")


_GROUP_HEAD = ("group", "kind", "width", "elements", "MACs", "params", "exact", "producers", "consumers")
_FROZEN_HEAD = ("frozen because", "MACs", "params", "axes", "nodes", "for example")


def _group_row(group: Facts) -> Row:
    sizes = [str(group["width"]), str(group["elements"]), *_shares(group["share"])]
    members = [_some(group[key]) for key in ("producers", "consumers")]
    return (group["name"], group["kind"], *sizes, "yes" if group["exact"] else "no", *members)


def _frozen_row(frozen: Facts) -> Row:
    counts = [str(frozen[key] or "") for key in ("axes", "nodes")]
    return (frozen["reason"], *_shares(frozen["share"]), *counts, frozen["example"])


def _shares(share: Facts) -> list[str]:
    return ["-" if share[key] is None else f"{share[key]:.1%}" for key in ("macs", "params")]


def _summary(result: Facts) -> str:
    if result["nothing"] is not None:
        return f"nothing in this model can be pruned: {result['nothing']}"
    groups, shares = result["groups"], result["prunable"]
    parts = [f"{shares[key]:.1%} of the {name}" for key, name in _COUNTED if shares[key] is not None]
    shapes = result["model"]["input_shapes"] or {}
    at = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    units = sum(group["width"] for group in groups)
    counted = f" ({at})" if at and shares["macs"] is not None else ""
    return f"{len(groups)} groups with {units} units can be pruned: {' and '.join(parts)}{counted}"


_COUNTED = (("macs", "MACs"), ("params", "parameters"))


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_MEMBERS
    return ", ".join(names[:_SHOWN_MEMBERS]) + (f" and {more} more" if more > 0 else "")
