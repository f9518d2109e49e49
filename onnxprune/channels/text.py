"""OpLinks as one line, for people and for golden tests.

`(a b . .), (c b . .), (c) -> (a c . .)  contract=b produce=c`: operands in order, axes that share a letter lose
elements together, `.` keeps its size, `(a b)` is one axis made of two digits, `_` an operand that is left out. Behind
it come the ties that reorder (`b=a[0:8]`, `b=a[%4]`, `b=a[/9]`; `-` is an element the node makes itself) and the
other links.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from onnxprune.channels.factors import atoms
from onnxprune.channels.links import (
    AxisKey,
    AxisRef,
    Contract,
    Inexact,
    Ints,
    Multiple,
    Operand,
    OpLinks,
    Pin,
    Produce,
    Role,
    Tie,
)

_RUNS = 8


def render(op: OpLinks) -> str:
    """One line that says everything the rule says, apart from names."""
    if op.barrier:
        return f"barrier: {op.barrier}"
    letters = _Letters(op)
    inputs = ", ".join(letters.operand(o) for o in op.inputs)
    outputs = ", ".join(letters.operand(o) for o in op.outputs)
    notes = letters.notes()
    return f"{inputs} -> {outputs}".lstrip() + ("  " + " ".join(notes) if notes else "")


class _Letters:
    """Hands out one letter for each class of axes that move together, in the order of appearance."""

    def __init__(self, op: OpLinks) -> None:
        self._op = op
        self._parent: dict[AxisKey, AxisKey] = {}
        self._names: dict[AxisKey, str] = {}
        self._composed: dict[AxisKey, list[AxisKey]] = {}
        self._shapes = {o.name: o.shape or () for o in op.operands()}
        for link in op.links:
            if isinstance(link, Tie) and len(link.a.axes) + len(link.b.axes) > 2:
                self._compose(link)
            elif isinstance(link, Tie) and link.index is None:
                self._parent[self._root(_key(link.a))] = self._root(_key(link.b))
        self._composed.update({self._root(key): parts for key, parts in self._composed.items()})
        self._spoken = op.mentioned()
        self._fresh = count()

    def operand(self, operand: Operand) -> str:
        if not operand.name:
            return "_"
        return "(" + " ".join(self._axis((operand.name, axis)) for axis in range(len(operand.shape or ()))) + ")"

    def notes(self) -> list[str]:
        found: list[str] = []
        for link in self._op.links:
            text = ""
            if isinstance(link, Tie):
                if link.index is not None:
                    text = f"{self._axis(_key(link.b))}={_pattern(self._axis(_key(link.a)), link.index)}"
            elif isinstance(link, Contract):
                text = f"contract={self._axis(_key(link.weight))}"
            elif isinstance(link, Produce):
                text = f"produce={self._axis(_key(link.weight))}" + ("" if link.kind == "channel" else f":{link.kind}")
            elif isinstance(link, Pin):
                part = "" if link.elements is None else _pattern("", link.elements)
                text = f"pin={self._axis(_key(link.axis))}{part}"
            elif isinstance(link, Inexact):
                text = f"inexact={self._axis(_key(link.axis))}"
            elif isinstance(link, Role):
                text = f"{link.kind}={self._axis(_key(link.axis))}"
            elif isinstance(link, Multiple):
                text = f"multiple={self._axis(_key(link.axis))}*{link.of}"
            if text and text not in found:
                found.append(text)
        return found

    def _axis(self, key: AxisKey) -> str:
        composed = self._composed.get(key) or self._composed.get(self._root(key))
        if composed:
            parts = [self._letter(part) for part in composed]
            return parts[0] if len(parts) == 1 else "(" + " ".join(parts) + ")"
        return self._letter(key) if key in self._spoken else "."

    def _letter(self, key: AxisKey) -> str:
        root = self._root(key)
        if root not in self._names:
            number = next(self._fresh)
            self._names[root] = chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
        return self._names[root]

    def _root(self, key: AxisKey) -> AxisKey:
        while self._parent.get(key, key) != key:
            key = self._parent[key]
        return key

    def _compose(self, tie: Tie) -> None:
        if tie.a.axes[0] < 0 and len(tie.b.axes) == 1:
            self._composed[_key(tie.b)] = [(tie.a.tensor, axis) for axis in tie.a.axes]
            return
        found = atoms(self._sizes(tie.a), self._sizes(tie.b))
        for place, atom in enumerate(found):
            virtual = (f"{tie.a} {tie.b}", place)
            for ref, axis in ((tie.a, atom.left), (tie.b, atom.right)):
                self._composed.setdefault((ref.tensor, ref.axes[axis]), []).append(virtual)

    def _sizes(self, ref: AxisRef) -> list[int]:
        return [int(self._shapes[ref.tensor][axis] or 0) for axis in ref.axes]


def _key(ref: AxisRef) -> AxisKey:
    return ref.tensor, ref.axes[0]


def _pattern(name: str, index: Ints) -> str:
    """An index array in short: a slice, a modulus, a quotient, or its runs."""
    n = len(index)
    if n and bool((index == -1).all()):
        return f"{name}[-*{n}]"
    period = int(index.max(initial=0)) + 1
    if 1 < period < n and np.array_equal(index, np.arange(n) % period):
        return f"{name}[%{period}]"
    if period < n and n % period == 0 and np.array_equal(index, np.arange(n) // (n // period)):
        return f"{name}[/{n // period}]"
    steps = np.diff(index)
    if n > 2 and steps[0] not in (0, 1) and bool((steps == steps[0]).all()):
        return f"{name}[{index[0]}:{index[-1] + np.sign(steps[0])}:{steps[0]}]"
    runs = _runs(index)
    more = "" if len(runs) <= _RUNS else f",...{n}"
    return f"{name}[{','.join(runs[:_RUNS])}{more}]"


def _runs(index: Ints) -> list[str]:
    new = index == -1
    cuts = np.flatnonzero((np.diff(index) != 1) & ~(new[1:] & new[:-1]) | (new[1:] != new[:-1])) + 1
    runs = []
    for run in np.split(index, cuts):
        if len(run) and run[0] == -1:
            runs.append(f"-*{len(run)}")
        elif len(run):
            runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}:{run[-1] + 1}")
    return runs
