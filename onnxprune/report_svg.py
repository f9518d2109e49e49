"""Pictures of the HTML report, as inline SVG: the distribution of latencies, and bars of widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.units import time_text

Facts = Mapping[str, Any]

_BINS = 90
_WIDTH, _HEIGHT, _TOP, _SIDE, _AXIS = 720, 200, 26, 30, 170
_TICKS = 4
_SHOWN = 0.99  # of the runs: the slowest would squeeze the rest into a few bins


def bar(before: int, after: int) -> str:
    """Returns a bar of the share that is left."""
    share = 100 * after / before if before else 0.0
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{share:.0f} % left">'
        '<rect class="before dist" width="100" height="10"></rect>'
        f'<rect class="after" width="{share:.1f}" height="10"></rect></svg>'
    )


def histogram(before: Facts, after: Facts, *, label: str) -> str:
    """Returns the distributions of two `LatencyFacts` on one axis, nothing where single runs are not known.

    label: HTML. Heights are shares of each model's runs in a bin; dashed lines stand at the P50.
    """
    arms = [(name, facts, sorted(facts["raw_s"])) for name, facts in (("before", before), ("after", after))]
    arms = [arm for arm in arms if arm[2]]
    if not arms:
        return ""
    low = min(runs[0] for _, _, runs in arms)
    high = max(runs[int(_SHOWN * (len(runs) - 1))] for _, _, runs in arms)
    span = (low, high if high > low else low * 1.01 + 1e-9)
    shares = [_shares(runs, *span) for _, _, runs in arms]
    top = max(max(each) for each in shares)
    parts = [f'<text x="{_SIDE}" y="14">{label}</text>', *_axis(*span)]
    for index, ((name, facts, runs), each) in enumerate(zip(arms, shares, strict=True)):
        parts.append(f'<path class="dist {name}" d="{_outline(each, top)}"></path>')
        parts.append(_median(name, facts["p50_ms"] / 1e3, *span))
        x = _WIDTH - _SIDE - 190 * (len(arms) - index) + 20
        parts.append(f'<rect class="dist {name}" x="{x}" y="5" width="10" height="10"></rect>')
        parts.append(
            f'<text x="{x + 15}" y="14">{name}: P50 {time_text(facts["p50_ms"] / 1e3)}, {len(runs)} runs</text>'
        )
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}"'
    return f'<svg class="chart" {size}>\n' + "\n".join(parts) + "\n</svg>\n" + _beyond(arms, span[1])


def front(points: Sequence[tuple[float, float]], *, across: str, up: str) -> str:
    """Returns the models of a front as numbered points over two axes; nothing for fewer than two. Texts are HTML."""
    if len(points) < 2:
        return ""
    places = [_scaled([point[axis] for point in points]) for axis in (0, 1)]
    low, high = ([pick(point[axis] for point in points) for axis in (0, 1)] for pick in (min, max))
    dots = []
    for number, (x, y) in enumerate(zip(*places, strict=True), 1):
        left, top = _across(x), _AXIS - 8 - y * (_AXIS - _TOP - 16)
        dots.append(f'<circle class="after" cx="{left:.1f}" cy="{top:.1f}" r="4"></circle>')
        dots.append(f'<text x="{left + 7:.1f}" y="{top + 4:.1f}">{number}</text>')
    parts = [
        f'<line class="axis" x1="{_SIDE}" x2="{_WIDTH - _SIDE}" y1="{_AXIS}" y2="{_AXIS}"></line>',
        f'<text x="{_SIDE}" y="14">{up}, from {low[1]:.3g} to {high[1]:.3g}</text>',
        f'<text x="{_SIDE}" y="{_AXIS + 18}">{low[0]:.3f}</text>',
        f'<text x="{_WIDTH / 2}" y="{_AXIS + 18}" text-anchor="middle">{across}</text>',
        f'<text x="{_WIDTH - _SIDE}" y="{_AXIS + 18}" text-anchor="end">{high[0]:.3f}</text>',
    ]
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{up} over {across}"'
    return f'<svg class="chart" {size}>\n' + "\n".join(parts + dots) + "\n</svg>\n"


def _scaled(values: Sequence[float]) -> list[float]:
    """Returns the places of values between the least, 0, and the largest, 1."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _shares(runs: Sequence[float], low: float, high: float) -> list[float]:
    counts = [0] * _BINS
    for run in runs:
        if run <= high:
            counts[min(int((run - low) / (high - low) * _BINS), _BINS - 1)] += 1
    return [count / len(runs) for count in counts]


def _across(share: float) -> float:
    """Returns the horizontal position for a share of the axis."""
    return _SIDE + share * (_WIDTH - 2 * _SIDE)


def _outline(shares: Sequence[float], top: float) -> str:
    """Returns the steps of a histogram as path data."""
    steps = [f"M{_across(0):.1f} {_AXIS}"]
    for index, share in enumerate(shares):
        steps.append(f"V{_AXIS - share / top * (_AXIS - _TOP):.1f}H{_across((index + 1) / _BINS):.1f}")
    return "".join([*steps, f"V{_AXIS}Z"])


def _median(name: str, seconds: float, low: float, high: float) -> str:
    x = _across(min(max((seconds - low) / (high - low), 0.0), 1.0))
    return f'<line class="p50 {name}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_AXIS}"></line>'


def _axis(low: float, high: float) -> list[str]:
    parts = [f'<line class="axis" x1="{_SIDE}" x2="{_WIDTH - _SIDE}" y1="{_AXIS}" y2="{_AXIS}"></line>']
    for tick in range(_TICKS + 1):
        x, text = _across(tick / _TICKS), time_text(low + (high - low) * tick / _TICKS)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_AXIS}" y2="{_AXIS + 4}"></line>')
        parts.append(f'<text x="{x:.1f}" y="{_AXIS + 18}" text-anchor="middle">{text}</text>')
    return parts


def _beyond(arms: Sequence[tuple[str, Facts, Sequence[float]]], high: float) -> str:
    """Returns what the picture leaves out, in words."""
    slower = [(name, sum(run > high for run in runs)) for name, _, runs in arms]
    told = ", ".join(f"{count} {name}" for name, count in slower if count)
    return f"<p>Slower runs than shown: {told}.</p>\n" if told else ""
