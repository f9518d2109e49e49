"""The levels of every group: at most eight widths on the runtime's alignment, each with its error.

An error is the square of the relative change of the final outputs. The curves of structured OBS say how errors grow
inside a group; one or two probes a group (the whole network run with only that level swapped in) say what they are
worth at the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.channels import Group
from onnxprune.search.solve import WidthChoice
from passes.structured_pruning.obs import Curve

MOST_LEVELS = 8
ALIGNMENTS = (64, 32, 16, 8, 4)
"""Units a level is rounded to: a multiple of 4 keeps the blocked layout of CPU convolutions, larger ones fill it."""


def widths(group: Group, most: int = MOST_LEVELS) -> tuple[int, ...]:
    """Ascending widths of a group, the full one last. Wide groups step by the coarsest alignment that still gives
    `most` levels.
    """
    step = next((a for a in ALIGNMENTS if group.width >= a * most), 4 if group.width >= 16 else 1)
    step = max(int(np.lcm(step, group.multiple_of)), group.multiple_of)
    grid = [w for w in range(step, group.width, step) if w >= group.min_keep] + [group.width]
    if len(grid) <= most:
        return tuple(grid)
    chosen = np.unique(np.linspace(0, len(grid) - 1, most).round().astype(int))
    return tuple(grid[i] for i in chosen)


@dataclass(frozen=True)
class Probe:
    """What one level of one group did to the outputs: units kept, squared relative output error."""

    width: int
    error: float


def errors(curve: Curve, levels: Sequence[int], probes: Sequence[Probe]) -> tuple[float, ...]:
    """The error of each level: the OBS curve, scaled by the probes (log-linear between two of them)."""
    full = len(curve.order)
    local = np.array([0.0 if width >= full else float(curve.error[full - width]) for width in levels])
    local = np.maximum.accumulate(local[::-1])[::-1]
    known = [(float(curve.error[full - p.width]), p.error) for p in probes if p.width < full]
    known = sorted((max(a, 1e-12), max(b, 1e-12)) for a, b in known)
    if not known:
        return tuple(local.tolist())
    x = np.log(np.maximum(local, 1e-12))
    gain = np.interp(x, np.log([a for a, _ in known]), [np.log(b / a) for a, b in known])
    scaled = np.where(local > 0, np.exp(x + gain), 0.0)
    return tuple(np.maximum.accumulate(scaled[::-1])[::-1].tolist())


def width_choices(
    groups: Sequence[Group],
    levels: Mapping[str, tuple[int, ...]],
    curves: Mapping[str, Curve],
    probes: Mapping[str, Sequence[Probe]],
    branch_of_group: Mapping[str, int],
) -> tuple[WidthChoice, ...]:
    """The choices of the integer programme."""
    return tuple(
        WidthChoice(
            group.name,
            levels[group.name],
            errors(curves[group.name], levels[group.name], probes.get(group.name, ())),
            branch_of_group.get(group.name),
        )
        for group in groups
        if group.name in curves
    )
