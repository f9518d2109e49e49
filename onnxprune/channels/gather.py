"""Turns classes of elements into groups: units that touch the same strands, in the order of their first producer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onnxprune.channels.collect import Tables
from onnxprune.channels.groups import Contraction, Group, Owner
from onnxprune.channels.links import AxisKey, Ints
from onnxprune.channels.solve import Solution

Bools = npt.NDArray[np.bool_]


class _Ranks(NamedTuple):
    """For each class: its first producer (index into `Tables.produced`) and its first element there; whether it
    is a unit.
    """

    producer: Ints
    place: Ints
    unit: Bools


def gather(tables: Tables, solution: Solution) -> tuple[Group, ...]:
    """All groups with at least two units."""
    ranks = _rank(tables, solution)
    classes, strands = _incidence(solution, ranks.unit, len(tables.keys))
    if not len(classes):
        return ()
    gathered = _signatures(classes, strands)
    axes_of: dict[int, list[int]] = {}
    for number, (_, axis) in enumerate(tables.keys):
        if axis >= 0:  # axes inside a node belong to no tensor
            axes_of.setdefault(int(solution.strand[number]), []).append(number)
    build = _Builder(tables, solution, axes_of)
    found = []
    for members, touched in gathered:
        order = np.lexsort((ranks.place[members], ranks.producer[members]))
        members = members[order]
        if len(members) > 1:
            first = (int(ranks.producer[members[0]]), int(ranks.place[members[0]]))
            found.append((first, members, touched))
    found.sort(key=lambda entry: entry[0])
    return tuple(build.group(members, touched, first[0]) for first, members, touched in found)


def _rank(tables: Tables, solution: Solution) -> _Ranks:
    """A unit is made by a weight, summed away by one, and not pinned."""
    count = len(solution.pinned)
    producer = np.full(count, len(tables.produced), np.int64)
    place = np.zeros(count, np.int64)
    for number in range(len(tables.produced) - 1, -1, -1):
        labels = solution.labels(int(solution.strand[tables.produced[number].axis]))
        producer[labels] = number
        place[labels[::-1]] = np.arange(len(labels))[::-1]
    summed = np.zeros(count, bool)
    for strand in {int(solution.strand[each.axis]) for each in tables.summed}:
        summed[solution.labels(strand)] = True
    return _Ranks(producer, place, summed & ~solution.pinned & (producer < len(tables.produced)))


def _incidence(solution: Solution, unit: Bools, axes: int) -> tuple[Ints, Ints]:
    """Unique (class, strand) pairs of units, digits of blocks left out, sorted by class."""
    real = np.zeros(len(solution.start) - 1, bool)
    real[solution.strand[:axes]] = True
    strand_of = np.repeat(np.arange(len(real)), np.diff(solution.start))
    ids = np.flatnonzero(unit[solution.label] & real[strand_of])
    pairs = np.unique(solution.label[ids] * len(real) + strand_of[ids])
    return pairs // max(len(real), 1), pairs % max(len(real), 1)


def _signatures(classes: Ints, strands: Ints) -> list[tuple[Ints, Ints]]:
    """Classes gathered by the set of strands they touch. Sets are compared by two 64-bit sums of random words."""
    random = np.random.default_rng(0).integers(0, 2**63, (int(strands.max()) + 1, 2), np.uint64)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(classes) > 0]))
    sums = np.add.reduceat(random[strands], starts, axis=0)
    _, inverse = np.unique(sums, axis=0, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    cuts = np.flatnonzero(np.diff(inverse.reshape(-1)[order])) + 1
    ends = np.append(starts[1:], len(classes))
    return [(classes[starts[part]], strands[starts[part[0]] : ends[part[0]]]) for part in np.split(order, cuts)]


class _Builder:
    def __init__(self, tables: Tables, solution: Solution, axes_of: dict[int, list[int]]) -> None:
        self._tables, self._solution, self._axes_of = tables, solution, axes_of
        self._names: dict[str, int] = {}
        strand = solution.strand
        self._produced: dict[int, list[int]] = {}
        for number, production in enumerate(tables.produced):
            self._produced.setdefault(int(strand[production.axis]), []).append(number)
        self._summed: dict[int, list[int]] = {}
        for number, summation in enumerate(tables.summed):
            self._summed.setdefault(int(strand[summation.axis]), []).append(number)
        self._inexact = {int(strand[axis]) for axis in tables.inexact}
        self._multiples: dict[int, list[int]] = {}
        for axis, multiple in tables.multiples:
            self._multiples.setdefault(int(strand[axis]), []).append(multiple)
        self._roles: dict[int, set[str]] = {}
        for axis, kind in tables.roles:
            self._roles.setdefault(int(strand[axis]), set()).add(kind)

    def group(self, members: Ints, touched: Ints, first: int) -> Group:
        tables, strands = self._tables, [int(s) for s in touched]
        numbers = sorted(number for strand in strands for number in self._axes_of.get(strand, ()))
        axes = {tables.keys[number]: int(self._solution.strand[number]) for number in numbers}
        labels = {strand: self._solution.labels(strand) for strand in strands}
        produced = sorted(number for strand in strands for number in self._produced.get(strand, ()))
        summed = sorted(number for strand in strands for number in self._summed.get(strand, ()))
        contractions = [Contraction(tables.summed[n].node, *tables.keys[tables.summed[n].axis]) for n in summed]
        contractions = [each for each in contractions if each.axis >= 0]
        multiple_of, min_keep = self._limits(members, labels)
        producers = tuple(dict.fromkeys(tables.keys[tables.produced[number].axis] for number in produced))
        return Group(
            name=self._name(tables.keys[tables.produced[first].axis]),
            kind=self._kind(strands, tables.produced[first].kind),
            width=len(members),
            owner=Owner(axes, labels, members),
            producers=producers,
            contractions=tuple(dict.fromkeys(contractions)),
            exact=not self._inexact.intersection(strands),
            min_keep=min_keep,
            multiple_of=multiple_of,
        )

    def _limits(self, members: Ints, labels: dict[int, Ints]) -> tuple[int, int]:
        """`multiple_of` and `min_keep`: all units stay where no number of them leaves a size that fits."""
        step = 1
        for strand, classes in labels.items():
            sizes = {int((classes == member).sum()) for member in members} if strand in self._multiples else set()
            for multiple in self._multiples.get(strand, ()):
                each = sizes.pop() if len(sizes) == 1 else 0
                sizes = {each}
                step = math.lcm(step, multiple // math.gcd(multiple, each)) if each else 0
            if not step or len(members) % step:
                return 1, len(members)
        return step, 1

    def _name(self, key: AxisKey) -> str:
        name = f"{key[0]}:{key[1]}"
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def _kind(self, strands: list[int], produced: str) -> str:
        roles = {role for strand in strands for role in self._roles.get(strand, ())}
        if produced == "embedding":
            return produced
        if "query_head" in roles and "head" not in roles:
            return "head"
        return next((role for role in ("head", "head_dim") if role in roles), produced)
