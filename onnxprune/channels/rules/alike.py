"""Links that many rules share: axes that pass through, and axes aligned by broadcasting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import matches, rank, ref, shape
from onnxprune.channels.links import Link, Pin, Tie


def pass_through(x: gs.Tensor, y: gs.Tensor, axes: Iterable[int] | None = None) -> Iterator[Link]:
    """Axis k of `y` is axis k of `x`, for the given axes or for all. Dynamic axes need no tie."""
    for axis in range(rank(x)) if axes is None else axes:
        if isinstance(shape(x)[axis], int) or isinstance(shape(y)[axis], int):
            yield Tie(ref(x, axis), ref(y, axis))


def on_its_own(x: gs.Tensor) -> Iterator[Link]:
    """The node reads nothing from these axes that depends on their size: they may change as they like."""
    yield from pass_through(x, x)


def broadcast(operands: Sequence[gs.Tensor], y: gs.Tensor) -> Iterator[Link]:
    """Numpy broadcasting: an axis that spans the output's axis is tied to it; one of size 1 serves all elements.

    Where an operand's size is unknown but the output's is not, the output keeps its size: the operand may span it.
    """
    for x in operands:
        offset = rank(y) - rank(x)
        for axis, dim in enumerate(shape(x)):
            out = shape(y)[axis + offset]
            if isinstance(dim, int) and dim != 1 and matches(dim, out):
                yield Tie(ref(x, axis), ref(y, axis + offset))
            elif dim != 1 and isinstance(out, int):
                yield Pin(ref(y, axis + offset), f"the size of {x.name}:{axis} is not known")
