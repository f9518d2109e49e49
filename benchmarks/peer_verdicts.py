"""From what tools made of each model, and the latencies of it, to who is ahead, and to Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peer_table import OURS, TOOLS
from recording import machines_text, markdown_table

Rows = Mapping[str, Mapping[str, Any]]

POINTS_ALLOWED = 1.0
WORTH_MEASURING = 10.0
"""Points of loss above which nobody asks for the latency."""

NOISE = 1.02
"""Ratio of two latencies up to which neither is ahead, as in runtime_bench's verdicts."""

MEAN_ASKED = 1.4
ROUNDING = 1e-6


@dataclass(frozen=True)
class Best:
    """The fastest model of a tool that loses one point at most. ratio: of the input model's latency; a tool that makes
    nothing faster leaves the input model, at 1.
    """

    tool: str
    ratio: float = 1.0
    label: str = "the input model"
    points: float = 0.0


def curve(model: str, made: Rows, timed: Rows) -> list[dict[str, Any]]:
    """Every variant of a model that was measured, with its `ratio` and bounds, fastest first."""
    speedups = timed.get(model, {}).get("speedups", {})
    rows = [{**made[name], **speed} for name, speed in speedups.items() if name in made]
    return sorted(rows, key=lambda row: float(row["ratio"]))


def best(model: str, tool: str, made: Rows, timed: Rows) -> Best:
    """What a tool can be used for on a model."""
    found = Best(tool)
    for row in curve(model, made, timed):
        allowed = row["tool"] == tool and row["points"] <= POINTS_ALLOWED + ROUNDING
        if allowed and row["ratio"] < found.ratio:
            found = Best(tool, row["ratio"], row["label"], row["points"])
    return found


def best_other(model: str, made: Rows, timed: Rows) -> Best:
    """The best of all other tools."""
    return min((best(model, tool, made, timed) for tool in TOOLS), key=lambda found: found.ratio)


def gain(model: str, made: Rows, timed: Rows) -> float:
    """How many times faster than the best of the others ours is."""
    return best_other(model, made, timed).ratio / best(model, OURS, made, timed).ratio


def mean_gain(made: Rows, timed: Rows) -> float:
    """Geometric mean of the gains over all models that were measured; 1 where none was."""
    gains = [gain(model, made, timed) for model in timed]
    return math.exp(sum(map(math.log, gains)) / len(gains)) if gains else 1.0


def verdicts(made: Rows, timed: Rows) -> dict[str, bool]:
    """What is asked of the comparison, and whether it is so."""
    never = all(gain(model, made, timed) * NOISE >= 1 for model in timed)
    return {"never behind": never, f"{MEAN_ASKED} times faster in the mean": mean_gain(made, timed) >= MEAN_ASKED}


def compare_text(made: Rows, timed: Rows) -> str:
    """The Markdown: machines, who is ahead on each model, every variant, and what failed."""
    if not timed:
        return "Nothing was measured."
    said = ", ".join(f"{name}: {'yes' if so else '**no**'}" for name, so in verdicts(made, timed).items())
    about = (
        "The least latency at one point of loss at most, as a ratio of the input model's; 1 where a tool makes nothing "
        f"faster. Geometric mean of the gains: {mean_gain(made, timed):.2f}. {said[0].upper()}{said[1:]}."
    )
    head = ("model", OURS, *TOOLS, "best of the others", "gain")
    ahead = markdown_table(head, [_model_line(model, made, timed) for model in timed])
    return "\n\n".join([machines_text(timed.values()), about, ahead, *_curves(made, timed), *_failures(made)])


def _model_line(model: str, made: Rows, timed: Rows) -> list[str]:
    ours, other = best(model, OURS, made, timed), best_other(model, made, timed)
    tried = {row["tool"] for row in made.values() if row["model"] == model}
    others = [f"{best(model, tool, made, timed).ratio:.3f}" if tool in tried else "-" for tool in TOOLS]
    gained = gain(model, made, timed)
    mark = "" if gained * NOISE >= 1 else " **behind**"
    return [
        model,
        f"**{ours.ratio:.3f}** ({ours.label})",
        *others,
        f"{other.tool}, {other.label}",
        f"{gained:.2f}{mark}",
    ]


def _curves(made: Rows, timed: Rows) -> Iterator[str]:
    head = ("model", "tool", "setting", "latency (95 % bounds)", "metric", "points lost", "seconds to make")
    lines = [_variant_line(row) for model in timed for row in curve(model, made, timed)]
    yield "### Every variant that was measured"
    yield markdown_table(head, lines)


def _variant_line(row: Mapping[str, Any]) -> list[str]:
    bounds = " to ".join("?" if row[key] is None else f"{row[key]:.3f}" for key in ("lower95", "upper95"))
    return [
        row["model"],
        row["tool"],
        row["label"],
        f"{row['ratio']:.3f} ({bounds})",
        f"{row['after']:.4f}",
        f"{row['points']:.2f}",
        f"{row['seconds']:.0f}",
    ]


def _failures(made: Rows) -> Iterator[str]:
    """What was not measured, and why."""
    failed = [f"- {name}: {row['error']}" for name, row in made.items() if row["error"]]
    worse = [
        f"- {name}: loses {row['points']:.1f} points"
        for name, row in made.items()
        if row["points"] is not None and row["points"] > WORTH_MEASURING
    ]
    if failed or worse:
        yield "### Not measured"
        yield "\n".join([*failed, *worse])
