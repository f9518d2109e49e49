"""Why an axis is frozen: the shortest chain of nodes from one of its elements to whatever pins it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.channels.causes import ALONE, NOT_MADE, NOT_SUMMED, grouped, touched
from onnxprune.channels.collect import Tables
from onnxprune.channels.groups import Frozen, Group
from onnxprune.channels.links import AxisKey
from onnxprune.channels.solve import Solution
from onnxprune.errors import UsageError

Element = tuple[int, int]  # axis number, index

_LONGEST = 24  # hops that a frozen axis lists; `explain` lists all
_MOST_NAMES = 3


def frozen_axes(tables: Tables, solution: Solution, groups: Sequence[Group]) -> tuple[Frozen, ...]:
    """One entry for each producing axis and cause, in graph order."""
    chains = _Chains(tables, solution)
    units, summed = grouped(solution, groups), touched(solution, (each.axis for each in tables.summed))
    found = []
    for number in dict.fromkeys(each.axis for each in tables.produced):
        labels = solution.labels(int(solution.strand[number]))
        left = ~units[labels]
        pinned = solution.pinned[labels]
        for cause, mask in (
            ("", left & pinned),
            (NOT_SUMMED, left & ~pinned & ~summed[labels]),
            (ALONE, left & ~pinned & summed[labels]),
        ):
            if mask.any():
                key, size = tables.keys[number], int(mask.sum())
                chain = [] if cause else chains.of((number, int(np.argmax(mask))), _LONGEST)
                found.append(Frozen(key, size, cause or chain[-1], tuple(chain or [cause])))
    named = {entry.axis for entry in found}
    for number, reason in tables.barred:
        key = tables.keys[number]
        if key not in named:
            named.add(key)
            found.append(Frozen(key, tables.sizes[number], reason, (f"{key[0]}:{key[1]}", reason)))
    return tuple(found)


def explain(tables: Tables, solution: Solution, groups: Sequence[Group], key: AxisKey) -> list[str]:
    """Lines about an axis: the groups it is in, and for the rest of it the chain to the nearest pin and all others."""
    name = f"{key[0]}:{key[1]}"
    if key not in tables.number:
        raise UsageError(f"no axis {name} with a static size; axes are written TENSOR:AXIS")
    number = tables.number[key]
    labels = solution.labels(int(solution.strand[number]))
    lines = []
    for group in groups:
        if key in group.owner:
            count = int((group.owner[key] >= 0).sum())
            lines.append(f"{name}: {count} of {len(labels)} in group {group.name} ({group.kind}, {group.width} units)")
            lines.append(f"  made by {_some([f'{tensor}:{axis}' for tensor, axis in group.producers])}")
            lines.append(f"  summed away by {_some([f'{c.tensor}:{c.axis} in {c.node}' for c in group.contractions])}")
    left, pinned = ~grouped(solution, groups)[labels], solution.pinned[labels]
    if (left & pinned).any():
        place = int(np.argmax(left & pinned))
        chain = _Chains(tables, solution).of((number, place), None)
        lines += [f"{name}: {int((left & pinned).sum())} of {len(labels)} frozen", *chain]
        others = [text for text in _holding(solution, int(labels[place])) if text != chain[-1]]
        if others:
            lines.append(f"also held by {_some(others)}")
    made = touched(solution, (each.axis for each in tables.produced))[labels]
    summed = touched(solution, (each.axis for each in tables.summed))[labels]
    for reason, mask in ((NOT_SUMMED, ~summed), (NOT_MADE, summed & ~made), (ALONE, summed & made)):
        count = int((left & ~pinned & mask).sum())
        if count:
            lines.append(f"{name}: {count} of {len(labels)} frozen: {reason}")
    return lines


def _holding(solution: Solution, label: int) -> list[str]:
    """The reasons of all pins of a class, in graph order."""
    found: dict[str, None] = {}
    for pin in solution.pins:
        labels = solution.labels(int(solution.strand[pin.axis]))
        if np.any((labels if pin.elements is None else labels[pin.elements]) == label):
            found[pin.text] = None
    return list(found)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class _Chains:
    """Breadth-first search over elements. Each class is searched once, from all its pins at the same time."""

    def __init__(self, tables: Tables, solution: Solution) -> None:
        self._tables, self._solution = tables, solution
        self._ties: dict[int, list[int]] = {}
        self._pins: dict[int, list[int]] = {}
        for number, tie in enumerate(solution.ties):
            for axis in {tie.a, tie.b}:
                self._ties.setdefault(axis, []).append(number)
        for number, pin in enumerate(solution.pins):
            self._pins.setdefault(pin.axis, []).append(number)
        self._next: dict[Element, tuple[Element, str]] = {}
        self._roots: dict[Element, Element] = {}
        self._searched: set[int] = set()

    def of(self, element: Element, longest: int | None) -> list[str]:
        """Axis, then `node -> axis` for each hop, then the reason. The middle is elided beyond `longest` hops."""
        solution = self._solution
        label = int(solution.label[solution.start[solution.strand[element[0]]] + element[1]])
        if label not in self._searched:
            self._searched.add(label)
            self._search(element)
        steps, hops = [self._name(element)], 0
        while element in self._next and (longest is None or hops < longest):
            element, node = self._next[element]
            hops += 1
            if element[0] < len(self._tables.keys) and self._tables.keys[element[0]][1] >= 0:
                steps.append(f"{node} -> {self._name(element)}")
        if element in self._next:
            steps.append("...")
        return [*steps, self._reason(element)]

    def _search(self, start: Element) -> None:
        seeds = [element for element in self._class(start) if self._pin(element)]
        queue = deque(seeds)
        root = {seed: seed for seed in seeds}
        while queue:
            element = queue.popleft()
            for neighbour, node in self._neighbours(element):
                if neighbour not in root:
                    root[neighbour] = root[element]
                    self._next[neighbour] = (element, node)
                    queue.append(neighbour)
        self._roots.update(root)

    def _class(self, start: Element) -> list[Element]:
        seen, queue = {start}, deque([start])
        while queue:
            for neighbour, _ in self._neighbours(queue.popleft()):
                if neighbour not in seen:
                    seen.add(neighbour)
                    queue.append(neighbour)
        return sorted(seen)

    def _neighbours(self, element: Element) -> Iterator[tuple[Element, str]]:
        axis, j = element
        for number in self._ties.get(axis, ()):
            tie = self._solution.ties[number]
            if tie.index is None:
                yield (tie.b if tie.a == axis else tie.a, j), tie.node
                continue
            if tie.b == axis and tie.index[j] >= 0:
                yield (tie.a, int(tie.index[j])), tie.node
            if tie.a == axis:
                for k in np.flatnonzero(tie.index == j):
                    yield (tie.b, int(k)), tie.node

    def _pin(self, element: Element) -> str:
        for number in self._pins.get(element[0], ()):
            pin = self._solution.pins[number]
            if pin.elements is None or element[1] in pin.elements:
                return pin.text
        return ""

    def _reason(self, element: Element) -> str:
        return self._pin(self._roots.get(element, element)) or "it keeps its size"

    def _name(self, element: Element) -> str:
        tensor, axis = self._tables.keys[element[0]]
        return f"{tensor}:{axis}"
