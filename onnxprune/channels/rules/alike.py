"""Links that many rules share: axes that pass through, and axes aligned by broadcasting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_graphsurgeon as gs

from onnxprune.channels.facts import rank, ref, shape
from onnxprune.channels.links import Link, Tie


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

    An axis of unknown size may be either, so it is tied as well, which pins the output's axis.
    """
    for x in operands:
        offset = rank(y) - rank(x)
        for axis in range(rank(x)):
            yield from spanning(x, axis, y, axis + offset)


def spanning(x: gs.Tensor, axis: int, y: gs.Tensor, out: int) -> Iterator[Link]:
    """The tie of one axis that is broadcast, if it has to have one."""
    length, span = shape(x)[axis], shape(y)[out]
    if isinstance(span, int) and length != 1 and (length == span or not isinstance(length, int)):
        yield Tie(ref(x, axis), ref(y, out))
