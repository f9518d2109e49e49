"""Chooses which digit of each reshaped block may lose elements: heads or head dimensions, channels or positions.

Blocks that share axes have to agree: a digit chosen in one keeps the other digits' axes whole everywhere. Axes
connected by ties form a component; deciding a block makes the components of its other axes whole, which may leave a
neighbouring block a single choice. Each block is decided once, so the work is linear.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from onnxprune.channels.collect import Block
from onnxprune.channels.components import connected_components
from onnxprune.channels.factors import Atom, atoms, digits
from onnxprune.channels.links import Ints

ROLE_ORDER = {
    "head": {"head": 3, "query_head": 2, "": 1, "head_dim": 0},
    "head_dim": {"head_dim": 3, "query_head": 2, "": 1, "head": 0},
}


class Choice(NamedTuple):
    """The digit of a block that may vary; None where none can, and then all its axes stay whole."""

    block: Block
    atom: Atom | None


class Facts(NamedTuple):
    """What is known before any block is decided. Axes by number.

    component: coarse component of each axis; pinned: whether all its elements are pinned; created: whether a component
    holds an axis that a node makes by itself; inexact: components that hold an axis whose size is in a formula; role:
    head or head_dim by component; labels: class of each element of an axis; free: whether a class is not pinned.
    """

    sizes: list[int]
    component: Ints
    pinned: np.ndarray
    created: set[int]
    inexact: set[int]
    role: dict[int, str]
    labels: Callable[[int], Ints]
    free: np.ndarray


class _State:
    def __init__(self, blocks: list[Block], facts: Facts, granularity: str) -> None:
        self.facts = facts
        self.order = ROLE_ORDER[granularity]
        self.blocks = blocks
        self.atoms = [
            atoms([facts.sizes[a] for a in block.left], [facts.sizes[b] for b in block.right]) for block in blocks
        ]
        self.whole: set[int] = set()
        self.chosen: dict[int, Atom | None] = {}
        self.members: dict[int, list[int]] = {}
        for number, block in enumerate(blocks):
            for component in {int(facts.component[a]) for a in (*block.left, *block.right)}:
                self.members.setdefault(component, []).append(number)

    def options(self, number: int, *, coarse: bool = True) -> list[Atom]:
        found = []
        for atom in self.atoms[number]:
            axes = self.axes(number, atom)
            if not any(self.facts.pinned[axis] for axis in axes) and not (
                coarse and any(int(self.facts.component[axis]) in self.whole for axis in axes)
            ):
                found.append(atom)
        return found

    def axes(self, number: int, atom: Atom) -> tuple[int, int]:
        block = self.blocks[number]
        return block.left[atom.left], block.right[atom.right]

    def decide(self, number: int) -> set[int]:
        """Fixes the choice of a block; returns the blocks whose options may have shrunk."""
        options = self.options(number) or self.options(number, coarse=False)
        atom = self._best(number, options)
        self.chosen[number] = atom
        varying = set(self.axes(number, atom)) if atom is not None else set()
        block, touched = self.blocks[number], set()
        spared = {int(self.facts.component[axis]) for axis in varying}
        for axis in {*block.left, *block.right} - varying:
            component = int(self.facts.component[axis])
            if component not in self.whole and component not in spared:
                self.whole.add(component)
                touched.update(self.members[component])
        return touched - self.chosen.keys()

    def _best(self, number: int, options: list[Atom]) -> Atom | None:
        """Wanted role first, then digits that weights can make, then those that no formula counts (whole groups of a
        GroupNorm rather than channels inside of them), then the most units, then the outermost.
        """
        if len(options) < 2:
            return options[0] if options else None
        worth = [self._worth(number, atom) for atom in options]
        rest = [atom for atom, value in zip(options, worth, strict=True) if value == max(worth)]
        return rest[0] if len(rest) == 1 else max(rest, key=lambda atom: self._fewest_units(number, atom))

    def _worth(self, number: int, atom: Atom) -> tuple[int, bool, bool]:
        facts = self.facts
        components = [int(facts.component[axis]) for axis in self.axes(number, atom)]
        role = next((facts.role[c] for c in components if c in facts.role), "")
        return self.order[role], facts.created.isdisjoint(components), facts.inexact.isdisjoint(components)

    def _fewest_units(self, number: int, atom: Atom) -> int:
        left, right = self.axes(number, atom)
        return min(self._units(left, atom.left_stride, atom.size), self._units(right, atom.right_stride, atom.size))

    def _units(self, axis: int, stride: int, size: int) -> int:
        """How many units a digit has on an axis, given what is tied already."""
        labels = self.facts.labels(axis)
        digit = digits(len(labels), stride, size)
        classes, inverse = np.unique(labels, return_inverse=True)
        count, group = connected_components(size + len(classes), digit, inverse + size)
        blocked = np.unique(group[size:][~self.facts.free[classes]])
        return count - len(blocked)


def choose(blocks: list[Block], facts: Facts, granularity: str) -> list[Choice]:
    """A choice for every block, forced ones first, the rest in graph order."""
    state = _State(blocks, facts, granularity)
    forced = deque(number for number in range(len(blocks)) if len(state.options(number)) <= 1)
    for number in range(len(blocks)):
        while forced:
            _settle(state, forced.popleft(), forced)
        _settle(state, number, forced)
    while forced:
        _settle(state, forced.popleft(), forced)
    return [Choice(block, state.chosen[number]) for number, block in enumerate(blocks)]


def _settle(state: _State, number: int, forced: deque[int]) -> None:
    if number in state.chosen:
        return
    for neighbour in state.decide(number):
        if len(state.options(neighbour)) <= 1:
            forced.append(neighbour)
