"""What a rule says about one node: which axes move together, which are summed away, which keep their size.

Links are data. They name axes of tensors; the solver turns them into element ids and the pruner slices by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

AxisKey = tuple[str, int]
Ints = npt.NDArray[np.int64]
Dim = int | str | None
Shape = tuple[Dim, ...]


class AxisRef(NamedTuple):
    """One axis of a tensor, or several that count as one: their elements in row-major order are the joint elements.

    A negative axis is inside a node, under the name of its output: see `Inner`.
    """

    tensor: str
    axes: tuple[int, ...]

    def __str__(self) -> str:
        text = " ".join(map(str, self.axes))
        return f"{self.tensor}:{text}" if len(self.axes) == 1 else f"{self.tensor}:({text})"


class Tie(NamedTuple):
    """Element j of `b` is element index[j] of `a`; without an index, element j. -1 means `b` makes the element
    itself.
    """

    a: AxisRef
    b: AxisRef
    index: Ints | None = None  # type: ignore[assignment]  # a tuple has a method of this name


class Contract(NamedTuple):
    """This axis of a weight, or of the second of two activations, is summed away against an activation axis."""

    weight: AxisRef


class Produce(NamedTuple):
    """This weight axis makes the elements of an output axis. `kind` names its units: channel, neuron, embedding."""

    weight: AxisRef
    kind: str


class Pin(NamedTuple):
    """This axis keeps its size, or these elements of it stay. The reason is shown to users."""

    axis: AxisRef
    reason: str
    elements: Ints | None = None


class Inexact(NamedTuple):
    """The operator's formula holds the number of elements of this axis: pruning it is not the same as masking it."""

    axis: AxisRef


class Role(NamedTuple):
    """What an axis is in an attention-like product: `head` (batched over), `query_head` (one of the heads that share a
    key head), or `head_dim` (summed or carried inside).
    """

    axis: AxisRef
    kind: str


class Inner(NamedTuple):
    """An axis that a node has only inside, like the heads of a fused attention, which its tensors hold packed together
    with the head dimensions. Written as a negative axis of the node's first output.
    """

    axis: AxisRef
    size: int


class Multiple(NamedTuple):
    """The size of this axis stays a multiple of `of`: kernels refuse other sizes."""

    axis: AxisRef
    of: int


Link = Tie | Contract | Produce | Pin | Inexact | Role | Inner | Multiple


class Barrier(Exception):  # noqa: N818  (a verdict about a node, never an error that users see)
    """Raised by a rule: nothing is known about this node, every axis that it touches keeps its size."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Operand(NamedTuple):
    """A named input or output of a node. The shape is None where even the rank is unknown."""

    name: str
    shape: Shape | None


@dataclass(frozen=True)
class OpLinks:
    """The links of one node. With a `barrier` there are none, and all axes of all operands keep their size."""

    node: str
    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    links: tuple[Link, ...] = ()
    barrier: str = ""

    def operands(self) -> tuple[Operand, ...]:
        """Inputs and outputs that have a name."""
        return tuple(operand for operand in (*self.inputs, *self.outputs) if operand.name)

    def mentioned(self) -> set[AxisKey]:
        """The axes that some link speaks about. All others keep their size."""
        return {(ref.tensor, axis) for link in self.links for ref in references(link) for axis in ref.axes}

    def __str__(self) -> str:
        from onnxprune.channels.text import render

        return render(self)


def references(link: Link) -> tuple[AxisRef, ...]:
    """The axes that a link names."""
    return (link.a, link.b) if isinstance(link, Tie) else (link[0],)
