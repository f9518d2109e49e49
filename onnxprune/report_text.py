"""A report in words: the rows and the lines that the command line and the HTML report have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxprune.units import bytes_text, count_text, time_text

Row = Sequence[str]
Facts = Mapping[str, Any]

_SIZES = (("parameters", "params", count_text), ("MACs", "macs", count_text), ("size", "bytes", bytes_text))


def result_rows(report: Facts) -> list[Row]:
    """Returns the before and after of a report: latency per EP, then size, then what the outputs lost. Of a front: a
    row a model.
    """
    if report.get("front"):
        return front_rows(report)
    rows: list[Row] = [("", "before", "after", "change")]
    for ep in report["result"]:
        rows.extend(_latency_rows(report, ep))
    before, after = report["model"], report.get("output")
    if after:
        for name, key, text in _SIZES:
            rows.append((name, text(before[key]), text(after[key]), _change(before[key], after[key])))
        rows.append(("nodes", str(before["nodes"]), str(after["nodes"]), ""))
    metric, drift = report.get("eval"), report.get("drift")
    if metric and metric["after"] is not None:
        change = f"{metric['after'] - metric['before']:+.2f}"
        rows.append((metric["metric"], f"{metric['before']:.2f}", f"{metric['after']:.2f}", change))
    if drift:
        rows.append(("relative output error", "", number_text(drift["value"], ".4f"), ""))
    return rows


def front_rows(report: Facts) -> list[Row]:
    """Returns one row a model of a front, the slowest first."""
    eps, metric = list(report["front"][0]["latency"]), report.get("eval")
    head = [text for ep in eps for text in (f"P50, {ep}", "change")]
    rows: list[Row] = [("model", *head, "size", "MACs", "error", *([metric["metric"]] if metric else []))]
    for number, each in enumerate(report["front"], 1):
        times = [
            text
            for ep in eps
            for text in (time_text(each["latency"][ep]["p50_ms"] / 1e3), speedup_text(each["speedup"][ep]))
        ]
        sizes = [bytes_text(each["output"]["bytes"]), count_text(each["output"]["macs"])]
        own = [number_text(each["metric"], ".2f")] if metric else []
        rows.append((str(number), *times, *sizes, number_text(each["drift"], ".4f"), *own))
    return rows


def _latency_rows(report: Facts, ep: str) -> Iterator[Row]:
    before, after = report["baseline"].get(ep), report["result"][ep]
    if before is None:
        return
    speedup = report["speedup"].get(ep)
    for name, key in (("P50", "p50_ms"), ("P90", "p90_ms"), ("P99", "p99_ms")):
        change, bound = _change(before[key], after[key]), ""
        if key == "p50_ms":
            change = speedup_text(speedup) if speedup else change
            upper = after["p50_upper95_ms"]
            bound = "" if upper is None else f" (95 %: at most {time_text(upper / 1e3)})"
        yield f"latency {name}, {ep}", time_text(before[key] / 1e3), time_text(after[key] / 1e3) + bound, change


def _change(before: float, after: float) -> str:
    return f"{after / before:.3f}x" if before else ""


def speedup_text(speedup: Facts) -> str:
    """Returns the ratio of the latencies, its bound where one is known, and the verdict."""
    upper = speedup["upper95"]
    bound = "" if upper is None else f" (95 %: at most {upper:.3f}x)"
    return f"{number_text(speedup['ratio'], '.3f', 'x')}{bound} {speedup['verdict']}"


def number_text(value: float | None, form: str, unit: str = "") -> str:
    """Returns a number of a report, in which null stands for one that is not finite."""
    return "not a number" if value is None else f"{value:{form}}{unit}"


def target_text(target: Facts) -> str:
    """Returns what was asked for, empty where that was no target."""
    value = target["value"]
    return {
        "ratio": f"{value:g}x",
        "seconds": time_text(value),
        "size": f"{value:g}x of the size",
        "bytes": bytes_text(value),
        "macs": f"{value:g}x of the MACs",
        "macs-count": f"{count_text(value)} MACs",
        "drift": f"lowest latency at an error of at most {value:g}",
        "drop": f"lowest latency at a drop of at most {value:g}",
        "front": f"{value:g} models along the front",
    }.get(target["kind"], "")
