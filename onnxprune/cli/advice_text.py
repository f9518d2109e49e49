"""Advice as text: one screen, wrapped to the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxprune.progress import one_line, seconds_text
from onnxprune.units import count_text, time_text

Facts = Mapping[str, Any]
_WIDTH = 110
_STAGES = 4  # the longest ones, named


def show(result: Facts, model: str) -> None:
    """Prints what `advice.plan` found."""
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH) if sys.stdout.isatty() else _WIDTH
    sys.stdout.writelines(line + "\n" for line in lines(result, model, width))


def lines(result: Facts, model: str, width: int) -> Iterator[str]:
    """The advice, a line each of at most about `width` characters."""
    for text in _heading(result, model):
        yield from _wrapped(text, width, "")
    yield from _section("Will be tried, in one search", result["tried"], width)
    if not result["tried"]:
        yield from ("", "Will be tried: the canonical form, which loses nothing")
    yield ""
    yield from _wrapped(_cost(result["cost"]), width, "")
    yield from _section("Cannot be had", result["cannot"], width)
    yield from _section("Would help", result["help"], width)


def _heading(result: Facts, model: str) -> Iterator[str]:
    found, host, data = result["model"], result["host"], result["data"]
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in found["input_shapes"].items())
    sorts = ", ".join(f"{share:.0%} {name}" for name, share in _largest(found["macs_by_operator"]))
    yield (
        f"{model}: {found['family']}{', quantized' if found['quantized'] else ''}, {count_text(found['macs'])} MACs"
        f"{f' ({sorts})' if sorts else ''}, {count_text(found['params'])} parameters"
    )
    runs = f"{time_text(found['latency_ms'] / 1e3)} at {shapes or 'no input'}"
    threads = f"{host['threads']} thread" + ("s" if host["threads"] > 1 else "")
    lossless = "" if found["lossless"] is None else f"; the lossless passes alone: {found['lossless']:.2f}x"
    yield f"here: {runs}, {', '.join(host['ep'])}, {threads}{lossless}"
    instructions = ", ".join(host["instructions"]) or "instructions unknown"
    yield f"{host['cpu']}: {instructions}; {'with' if host['fast_int8'] else 'no'} fast 8-bit products"
    yield f"data: {data['samples']:,} samples" if data["given"] else "data: none, so inputs are made up"
    if result["target"]["met_already"]:
        yield f"{result['target']['text']} is met by the lossless passes alone: nothing has to be lost"


def _largest(shares: Mapping[str, float]) -> Sequence[tuple[str, float]]:
    return [pair for pair in sorted(shares.items(), key=lambda pair: -pair[1]) if pair[1] >= 0.005]


def _section(title: str, rows: Sequence[Facts], width: int) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield title
    for row in rows:
        gives = f" -> {row['gives']}" if row["gives"] else ""
        yield from _wrapped(f"- {row['says']}{gives}", width, "  ")
        why = f"{row['because']} " if row["because"] else ""
        yield from _wrapped(f"{why}[{row['source']}]", width, "  ", "  ")


def _cost(cost: Facts) -> str:
    largest = sorted(cost["stages"], key=lambda stage: -stage["seconds"][1])[:_STAGES]
    parts = ", ".join(f"{stage['stage']} {_span(stage['seconds'])}" for stage in largest)
    whole = cost["seconds"]["normal"]
    others = ", ".join(
        f"{_span(seconds)} with --effort {name}" for name, seconds in cost["seconds"].items() if seconds != whole
    )
    return f"Will take about {_span(whole)} on an idle machine{f' ({others})' if others else ''}; most for {parts}"


def _span(seconds: Sequence[float]) -> str:
    low, high = (seconds_text(value) for value in seconds)
    return low if low == high else f"{low} to {high}"


def _wrapped(text: str, width: int, indent: str, first: str = "") -> list[str]:
    return textwrap.wrap(one_line(text), max(width, 40), initial_indent=first, subsequent_indent=indent)
