"""Makes a table fit a terminal: long text ends in an ellipsis, and text columns that get too narrow are left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

Row = Sequence[str]
GAP = 2
_NARROWEST = 16  # a text column under this tells nothing
_WIDEST_NAME = 48


def fitted(rows: Sequence[Row], loose: Collection[int], width: int) -> list[list[str]]:
    """The rows, where the columns in `loose` take the room that the others leave. The first column holds names, which
    people copy: it is never cut, but may go on in the next line.
    """
    natural = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first = min(natural[0], _WIDEST_NAME)
    room = width - first - sum(natural[i] + GAP for i in range(1, len(natural)) if i not in loose)
    wanted = sorted((natural[i], i) for i in loose)
    while wanted and room < sum(min(size, _NARROWEST) + GAP for size, _ in wanted):
        wanted.remove(max(wanted, key=lambda entry: entry[1]))
    limits: dict[int, int] = {}
    for place, (size, column) in enumerate(wanted):  # the narrow ones first: what they leave is for the others
        limits[column] = min(size, max(_NARROWEST, room // (len(wanted) - place) - GAP))
        room -= limits[column] + GAP
    kept = [i for i in range(len(natural)) if i not in loose or i in limits]
    return [[_cut(row[i], limits.get(i, natural[i])) for i in kept] for row in rows]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
