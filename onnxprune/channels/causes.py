"""Why each class of elements stays: what removes it, or the first thing in graph order that keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.collect import Tables
from onnxprune.channels.groups import Group
from onnxprune.channels.links import Ints
from onnxprune.channels.solve import Bools, Solution

NOT_SUMMED = "no weight sums it away"
NOT_MADE = "no weight makes it"
ALONE = "all of it is one unit, and one has to stay"
LEAST = "the least that a group keeps"

PLAIN, LEAVES, STAYS = 0, 1, 2
_FIRST = 3


@dataclass(frozen=True)
class Causes:
    """code: for each class PLAIN (no channel: nothing makes or sums it), LEAVES (a unit that can be removed), STAYS (a
    unit that its group has to keep), or the number of what freezes it. held: for each class the number of what pins
    it, 0 where nothing does. words: by number.
    """

    code: Ints
    held: Ints
    words: list[str]


def touched(solution: Solution, axes: Iterable[int]) -> Bools:
    """The classes that these axes hold elements of."""
    found = np.zeros(len(solution.pinned), bool)
    for strand in {int(solution.strand[axis]) for axis in axes}:
        found[solution.labels(strand)] = True
    return found


def grouped(solution: Solution, groups: Sequence[Group]) -> Bools:
    """The classes that are units of groups."""
    found = np.zeros(len(solution.pinned), bool)
    for group in groups:
        found[group.owner.classes] = True
    return found


def causes(tables: Tables, solution: Solution, groups: Sequence[Group]) -> Causes:
    """What becomes of every class when each group keeps its `min_keep` first units."""
    words = ["", "", LEAST, NOT_SUMMED, NOT_MADE, ALONE]
    made = touched(solution, (each.axis for each in tables.produced))
    summed = touched(solution, (each.axis for each in tables.summed))
    held = _held(solution, words)
    channel = made | summed
    code = np.where(channel, held, PLAIN)
    loose = channel & (held == 0)
    code[loose & ~summed] = _FIRST
    code[loose & ~made] = _FIRST + 1
    code[loose & made & summed] = _FIRST + 2
    for group in groups:
        code[group.owner.classes] = np.where(group.owner.units < group.min_keep, STAYS, LEAVES)
    return Causes(code, held, words)


def _held(solution: Solution, words: list[str]) -> Ints:
    """For each class the number of the first pin's words, which are added to `words`."""
    pins, start = solution.pins, solution.start
    none = len(pins)
    by_strand = np.full(len(start) - 1, none, np.int64)
    whole = [(int(solution.strand[pin.axis]), number) for number, pin in enumerate(pins) if pin.elements is None]
    if whole:
        np.minimum.at(by_strand, *np.array(whole, np.int64).T)
    by_id = np.repeat(by_strand, np.diff(start))
    for number, pin in enumerate(pins):
        if pin.elements is not None:
            np.minimum.at(by_id, start[solution.strand[pin.axis]] + pin.elements, number)
    first = np.full(len(solution.pinned), none, np.int64)
    np.minimum.at(first, solution.label, by_id)
    numbers: dict[str, int] = {}
    found = np.zeros(none + 1, np.int64)
    for number in np.unique(first[first < none]):
        text = pins[number].words
        if text not in numbers:
            numbers[text] = len(words)
            words.append(text)
        found[number] = numbers[text]
    return found[first]
