"""One picture of latency against metric: what is in it, as SVG, and as a part of a PNG."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer_table import OURS, point
from peer_verdicts import Rows, curve

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 250, 48, 10, 12, 34
TICKS = 5
SLOWEST = 1.3  # ratio at which a mark stands that is slower still
MARGIN = 0.08


@dataclass(frozen=True)
class Sign:
    """The form of a mark. outline: its corners around the origin, none for a disc. matplotlib: its name there."""

    outline: tuple[tuple[float, float], ...]
    matplotlib: str

    def svg(self, x: float, y: float, colour: str, title: str = "") -> str:
        """A mark at a place."""
        told = f"<title>{html.escape(title)}</title>" if title else ""
        if not self.outline:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}">{told}</circle>'
        corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in self.outline)
        return f'<polygon points="{corners}" fill="{colour}">{told}</polygon>'


DISC = Sign((), "o")
SQUARE = Sign(((-4, -4), (4, -4), (4, 4), (-4, 4)), "s")
TRIANGLE = Sign(((0, -5), (4.6, 4), (-4.6, 4)), "^")
DIAMOND = Sign(((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)), "D")

SERIES = {
    OURS: ("#2878c8", DISC),
    "ORT static int8": ("#d9822b", SQUARE),
    "ORT dynamic int8": ("#b8860b", TRIANGLE),
    "onnxsim pruning": ("#8a8a8a", DIAMOND),
    "onnxsim pruning + int8": ("#6b7f5e", SQUARE),
    "NNCF int8": ("#1f9e89", TRIANGLE),
    "Torch-Pruning": ("#c0362c", DIAMOND),
    "Torch-Pruning + int8": ("#a64d9c", TRIANGLE),
}
"""Colour and mark of every tool, each readable on white and on black."""

OTHERS_COLOUR = "#8a8a8a"


@dataclass(frozen=True)
class Mark:
    """A model that was measured: latency as a share of the input model's, and its metric."""

    tool: str
    label: str
    ratio: float
    value: float


@dataclass(frozen=True)
class Panel:
    """All marks of one model. before: the metric of the input model, which stands at ratio 1. allowed: the metric at
    one point of loss.
    """

    model: str
    metric: str
    before: float
    allowed: float
    points: tuple[Mark, ...]


def panel_of(model: str, made: Rows, timed: Rows) -> Panel:
    """The panel of a model that was measured."""
    rows = curve(model, made, timed)
    marks = tuple(Mark(row["tool"], row["label"], row["ratio"], row["after"]) for row in rows)
    before = float(rows[0]["before"])
    return Panel(model, str(rows[0]["metric"]), before, before - point(model), marks)


def front(panel: Panel, *, ours: bool) -> list[tuple[float, float]]:
    """Ratio and metric of what no other model of the same side beats in both, fastest first; the input model is on
    both sides.
    """
    mine = [(mark.ratio, mark.value) for mark in panel.points if (mark.tool == OURS) == ours]
    found: list[tuple[float, float]] = []
    for ratio, value in sorted([*mine, (1.0, panel.before)], key=lambda pair: (pair[0], -pair[1])):
        if not found or value > found[-1][1]:
            found.append((ratio, value))
    return found


def span(panel: Panel) -> tuple[float, float]:
    """Lowest and highest metric of the axis."""
    values = [panel.before, panel.allowed, *(mark.value for mark in panel.points)]
    room = (max(values) - min(values)) * MARGIN
    return min(values) - room, max(values) + room


def svg(panel: Panel) -> str:
    """The picture, coloured by the page around it."""
    low, high = span(panel)

    def across(ratio: float) -> float:
        return LEFT + min(ratio, SLOWEST) / SLOWEST * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    marks = [SERIES[m.tool][1].svg(across(m.ratio), down(m.value), SERIES[m.tool][0], told(m)) for m in panel.points]
    parts = [
        *_axes(low, high, across(0), across(SLOWEST), down),
        *(f'<text x="{across(r):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{r:g}x</text>' for r in _ratios()),
        f'<text x="{across(SLOWEST / 2):.1f}" y="{HEIGHT - 3}" text-anchor="middle">latency</text>',
        f'<path class="allowed" d="M{across(0):.1f} {down(panel.allowed):.1f}H{across(SLOWEST):.1f}"></path>',
        *(_joined([(across(r), down(v)) for r, v in line], colour) for colour, line in _lines(panel)),
        *marks,
    ]
    label = html.escape(f"Latency against {panel.metric} of {panel.model}", quote=True)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"'
    return f'<svg class="chart" {size}>\n' + "\n".join(parts) + "\n</svg>\n"


def _joined(places: Sequence[tuple[float, float]], colour: str) -> str:
    corners = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="front" stroke="{colour}" d="M{corners}"></path>'


def told(mark: Mark) -> str:
    """What a mark is, in words."""
    return f"{mark.tool}, {mark.label}: {mark.ratio:.3f}x, {mark.value:.4f}"


def _lines(panel: Panel) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    yield OTHERS_COLOUR, front(panel, ours=False)
    yield SERIES[OURS][0], front(panel, ours=True)


def _ratios() -> Iterable[float]:
    return (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def _axes(low: float, high: float, left: float, right: float, down: Callable[[float], float]) -> Iterator[str]:
    for tick in range(TICKS):
        value = low + (high - low) * (tick + 0.5) / TICKS
        y = down(value)
        yield f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"></path>'
        yield f'<text x="{left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    yield f'<path class="axis" d="M{left:.1f} {TOP}V{HEIGHT - BOTTOM}H{right:.1f}"></path>'


def png(panels: Sequence[Panel], path: Path) -> None:
    """Draws all panels into one PNG. ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.9 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for panel, axis in zip(panels, axes.flat, strict=False):
        axis.set_title(f"{panel.model}: {panel.metric}", fontsize=9)
        axis.axhline(panel.allowed, color="#444444", linestyle=":", linewidth=1)
        for colour, line in _lines(panel):
            axis.plot(*zip(*line, strict=True), color=colour, linewidth=1.5)
        for tool, (colour, sign) in SERIES.items():
            mine = [mark for mark in panel.points if mark.tool == tool]
            if mine:
                ratios = [min(mark.ratio, SLOWEST) for mark in mine]
                axis.scatter(ratios, [m.value for m in mine], color=colour, marker=sign.matplotlib, label=tool, s=26)
        axis.set_xlim(0, SLOWEST)
        axis.set_ylim(*span(panel))
        axis.set_xlabel("latency, as a share of the input model's")
        axis.grid(alpha=0.3)
    found = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(found.values(), found.keys(), loc="lower center", ncols=min(4, len(found)), frameon=False)
    figure.tight_layout(rect=(0, 0.07 + 0.04 / rows, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
