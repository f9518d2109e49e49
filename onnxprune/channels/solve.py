"""From tables of axes to classes of elements: which elements leave together, and which stay.

Axes that are tied element by element share one run of ids (a strand), so an identity tie costs nothing per element. All
other ties are edges between ids. Classes are connected components; nothing loops over elements in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.channels.choose import Choice, Facts, choose
from onnxprune.channels.collect import AxisPin, AxisTie, Tables
from onnxprune.channels.components import connected_components
from onnxprune.channels.factors import digits
from onnxprune.channels.links import Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Solution:
    """Classes of elements.

    strand: strand of each axis; start: first id of each strand, with one more entry for the end; label: class of each
    id; pinned: whether a class stays; ties and pins: all that was declared, block choices included (axes numbered
    from `len(tables.keys)` on are the digits of blocks).
    """

    strand: Ints
    start: Ints
    label: Ints
    pinned: Bools
    ties: list[AxisTie]
    pins: list[AxisPin]
    sizes: list[int]

    def labels(self, strand: int) -> Ints:
        """The class of each element of a strand."""
        return self.label[self.start[strand] : self.start[strand + 1]]


def solve(tables: Tables, granularity: str) -> Solution:
    """Classes of all elements, after choosing the varying digit of every reshaped block."""
    first = _classes(tables.sizes, tables.ties, tables.pins)
    if not tables.blocks:
        return first
    choices = choose(tables.blocks, _facts(tables, first), granularity)
    sizes, ties, pins = list(tables.sizes), list(tables.ties), list(tables.pins)
    for choice in choices:
        _apply(choice, sizes, ties, pins)
    return _classes(sizes, ties, pins)


def _apply(choice: Choice, sizes: list[int], ties: list[AxisTie], pins: list[AxisPin]) -> None:
    """Ties the two axes that hold the chosen digit to it, and pins the others."""
    block, atom = choice
    varying: set[int] = set()
    if atom is not None:
        left, right = block.left[atom.left], block.right[atom.right]
        varying = {left, right}
        sizes.append(atom.size)
        for axis, stride in ((left, atom.left_stride), (right, atom.right_stride)):
            ties.append(AxisTie(len(sizes) - 1, axis, digits(sizes[axis], stride, atom.size), block.node))
    reason = "another axis of the same reshape varies" if varying else "no axis of it can vary alone"
    pins.extend(AxisPin(axis, None, reason, block.node) for axis in (*block.left, *block.right) if axis not in varying)


def _classes(sizes: list[int], ties: list[AxisTie], pins: list[AxisPin]) -> Solution:
    same = [tie for tie in ties if tie.index is None]
    _, strand = connected_components(len(sizes), _array([tie.a for tie in same]), _array([tie.b for tie in same]))
    count = int(strand.max(initial=-1)) + 1
    lengths = np.zeros(count, np.int64)
    lengths[strand] = _array(sizes)
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sources, targets = [_array([])], [_array([])]
    for tie in ties:
        if tie.index is not None:
            real = tie.index >= 0
            sources.append(start[strand[tie.a]] + tie.index[real])
            targets.append(start[strand[tie.b]] + np.flatnonzero(real))
    classes, label = connected_components(int(start[-1]), np.concatenate(sources), np.concatenate(targets))
    pinned = np.zeros(classes, bool)
    pinned[label[_pinned_ids(pins, strand, start)]] = True
    return Solution(strand, start, label, pinned, ties, pins, sizes)


def _pinned_ids(pins: list[AxisPin], strand: Ints, start: Ints) -> Ints:
    whole = np.unique(strand[_array([pin.axis for pin in pins if pin.elements is None])])
    some = [start[strand[pin.axis]] + pin.elements for pin in pins if pin.elements is not None]
    mark = np.zeros(int(start[-1]) + 1, np.int64)
    np.add.at(mark, start[whole], 1)
    np.add.at(mark, start[whole + 1], -1)
    return np.concatenate([np.flatnonzero(np.cumsum(mark[:-1])), *some]).astype(np.int64)


def _facts(tables: Tables, solution: Solution) -> Facts:
    """What the choice of digits needs to know, from the classes before any block is decided."""
    strand = solution.strand
    linked = [tie for tie in tables.ties if tie.index is not None and (tie.index >= 0).any()]
    ends = _array([strand[tie.a] for tie in linked]), _array([strand[tie.b] for tie in linked])
    _, coarse = connected_components(len(solution.start) - 1, *ends)
    component = coarse[strand].astype(np.int64)
    stays = np.concatenate([[0], np.cumsum(solution.pinned[solution.label])])
    whole = np.diff(stays[solution.start]) == np.diff(solution.start)
    created = {int(component[t.b]) for t in tables.ties if t.index is not None and bool((t.index < 0).all())}
    role: dict[int, str] = {}
    for axis, kind in tables.roles:
        if kind == "head" or int(component[axis]) not in role:
            role[int(component[axis])] = kind
    return Facts(
        sizes=tables.sizes,
        component=component,
        pinned=whole[strand],
        created=created,
        inexact={int(component[axis]) for axis in tables.inexact},
        role=role,
        labels=lambda axis: solution.labels(int(strand[axis])),
        free=~solution.pinned,
    )


def _array(values: list[int]) -> Ints:
    return np.array(values, np.int64)
