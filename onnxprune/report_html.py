"""The report as one HTML page: no scripts, nothing loaded from elsewhere, so it can be kept or sent as it is.

Names come from models and may hold anything: all text goes through `_text`, and the page forbids itself scripts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from onnxprune import report_svg
from onnxprune.progress import one_line
from onnxprune.report_text import number_text, result_rows, speedup_text, target_text
from onnxprune.units import bytes_text

Facts = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --before: #888; --after: #2878c8; --good: #1a7f37; --bad: #c0362c; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
h1, td, th, p, li { overflow-wrap: anywhere; }
.verdict { font-size: 1.2rem; border-left: .4rem solid var(--line); padding: .4rem 0 .4rem .9rem; }
.verdict p { margin: .15rem 0; } .met { border-color: var(--good); } .missed { border-color: var(--bad); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.scroll { overflow-x: auto; }
.chart { width: 100%; max-width: 45rem; height: auto; } .chart text { font: 11px system-ui, sans-serif; }
.chart text { fill: currentColor; } .axis { stroke: currentColor; } .bar { width: 8rem; height: .7rem; }
.before { fill: var(--before); } .after { fill: var(--after); } .dist { fill-opacity: .5; }
.p50 { stroke-width: 1.5; stroke-dasharray: 4 3; } .p50.before { stroke: var(--before); }
.p50.after { stroke: var(--after); }
""".strip()

_HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
)


def render(report: Facts) -> str:
    """Returns the page for a report as plain data, as `Report.to_dict` and `--report` give it."""
    title = _text(f"onnxprune: {_file_name(report['model']['path'])}")
    sections = (
        _section("Before and after", _table(result_rows(report))),
        _section("Front", "".join(_fronts(report))),
        _section("Latency", "".join(_latencies(report))),
        _section("Groups", _groups(report["groups"])),
        _section("Dropped branches", _list(report["dropped_branches"])),
        _section("Search", _search(report["search"])),
        _section("Passes", _passes(report["passes"])),
        _section("Nodes left in float", _list(report["float_nodes"])),
        _section("Output error", _drift(report["drift"])),
        _section("Notes", _list(report["notes"])),
        _section("Run", _run(report)),
        _section("Models", _models(report)),
        _section("Host", _pairs(report["host"])),
        _section("Versions", _pairs(report["versions"])),
    )
    body = f"<h1>{title}</h1>\n{_headline(report)}{''.join(sections)}"
    return f"{_HEAD}<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n"


def _text(value: object) -> str:
    """Returns the text of a value as HTML, on one line: also control characters and quotes are made harmless."""
    return html.escape(one_line(str(value)), quote=True)


def _file_name(path: str | None) -> str:
    return PurePath(path).name if path else "a model in memory"


def _section(title: str, content: str) -> str:
    """Returns a section, or nothing where there is nothing to show."""
    return f"<section>\n<h2>{_text(title)}</h2>\n{content}</section>\n" if content else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of plain texts, the first row its heading; nothing where it has no other rows."""
    return _marked_table(rows[0], ([_text(cell) for cell in row] for row in rows[1:]))


def _marked_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table whose cells are HTML already."""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{_text(cell)}</th>" for cell in heading)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'


def _list(items: Iterable[object]) -> str:
    entries = "".join(f"<li>{_text(item)}</li>\n" for item in items)
    return f"<ul>\n{entries}</ul>\n" if entries else ""


def _folded(summary: str, items: Sequence[object]) -> str:
    return f"<details><summary>{_text(summary)}</summary>\n{_list(items)}</details>" if items else ""


def _pairs(facts: Facts) -> str:
    return _table([("", ""), *((key, _value(value)) for key, value in facts.items())])


def _value(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _headline(report: Facts) -> str:
    """Returns whether the target was met, and how fast the result is on every EP."""
    asked, met = target_text(report["target"]), report["met"]
    outcome = "met" if met else "NOT met"
    lines = [f"<strong>{_text(f'Target {asked}: {outcome}' if asked else f'Request {outcome}')}</strong>"]
    for ep, speedup in report["speedup"].items():
        lines.append(_text(f"{ep}: {speedup_text(speedup)}"))
    for ep, ratio in report["floor"].items():
        lines.append(
            _text(f"{ep}: the lowest latency measured is {number_text(ratio, '.3f', 'x')} of the input model's")
        )
    if not report.get("front"):
        lines.append(_text(f"precision: {report['scheme']}"))
    content = "".join(f"<p>{line}</p>\n" for line in lines)
    return f'<div class="verdict {"met" if met else "missed"}">\n{content}</div>\n'


def _fronts(report: Facts) -> Iterator[str]:
    """Yields loss over latency of the models of a front, a picture an EP."""
    models = report.get("front") or []
    metric = report["eval"]["metric"] if report["eval"] else None
    loss = [each["drift"] if metric is None else each["metric"] for each in models]
    up = "relative output error" if metric is None else metric
    for ep in models[0]["speedup"] if models and None not in loss else ():
        points = [(each["speedup"][ep]["ratio"], value) for each, value in zip(models, loss, strict=True)]
        yield report_svg.front(points, across=_text(f"latency on {ep} over the input model's"), up=_text(up))


def _latencies(report: Facts) -> Iterator[str]:
    for ep, after in report["result"].items():
        before = report["baseline"].get(ep)
        if before is not None:
            yield report_svg.histogram(before, after, label=_text(f"Latency on {ep}"))


def _groups(groups: Sequence[Facts]) -> str:
    heading = ("group", "kind", "before", "after", "")
    rows = (
        [
            *map(_text, (group["name"], group["kind"], group["width_before"], group["width_after"])),
            report_svg.bar(group["width_before"], group["width_after"]),
        ]
        for group in groups
    )
    return _marked_table(heading, rows)


def _search(rounds: Sequence[Facts]) -> str:
    """Returns one row a round; ratios are of the input model's P50, one an EP."""
    heading = ("round", "precision", "branches dropped", "groups narrowed", "predicted", "measured", "measured again")
    rows = [
        (
            str(index),
            _value(entry.get("scheme")),
            _value(entry.get("dropped")),
            _value(entry.get("narrowed")),
            *(_ratios(entry.get(key)) for key in ("predicted_ratio", "measured_ratio", "fresh_ratio")),
        )
        for index, entry in enumerate(rounds, 1)
    ]
    return _table([heading, *rows])


def _ratios(values: Sequence[float | None] | None) -> str:
    return ", ".join(number_text(value, ".3f", "x") for value in values or ())


def _passes(passes: Sequence[Facts]) -> str:
    rows = (
        [
            _text(entry["name"]),
            _text(_outcome(entry)),
            _text(f"{entry['seconds']:.2f} s"),
            _folded(f"{len(entry['skips'])} left as they are", entry["skips"]),
        ]
        for entry in passes
    )
    return _marked_table(("pass", "outcome", "time", "skips"), rows)


def _outcome(entry: Facts) -> str:
    if not entry["kept"]:
        return "reverted"
    return "changed the model" if entry["modified"] else "nothing to do"


def _drift(drift: Facts | None) -> str:
    if not drift:
        return ""
    data = "on synthetic inputs, which say little about real data" if drift["synthetic_data"] else "on the user's data"
    rows = [(name, number_text(value, ".4g")) for name, value in drift["outputs"].items()]
    metric = drift["metric"]
    return f"<p>{_text(f'{metric}, {data}')}</p>\n{_table([('output', 'error'), *rows])}"


def _run(report: Facts) -> str:
    rows = [("", ""), ("seed", str(report["seed"])), ("time", f"{report['seconds']:.1f} s")]
    rows += [(f"time {stage}", f"{seconds:.1f} s") for stage, seconds in report["stages"].items()]
    if report["peak_memory_bytes"]:
        rows.append(("peak memory", bytes_text(report["peak_memory_bytes"])))
    if report["opset"]:
        rows.append(("opset", " -> ".join(map(str, report["opset"]))))
    rows += [(f"masked oracle: {key}", _value(value)) for key, value in (report["oracle"] or {}).items()]
    return _table(rows)


def _models(report: Facts) -> str:
    found = [("input", report["model"]), ("result", report["output"])]
    rows = [(what, _file_name(facts["path"]), facts["sha256"]) for what, facts in found if facts]
    return _table([("", "file", "SHA-256"), *rows])
