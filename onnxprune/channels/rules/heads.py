"""Heads inside of fused attention operators, whose tensors hold (heads x head dimension) as one axis.

A query axis is (key heads, query heads a key head, head dimension), a key axis (key heads, head dimension), and values
and outputs have a head dimension of their own. The digits are axes inside the node (`Inner`): the solver chooses which
of them loses elements, as it does for a Reshape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import rank, ref, size
from onnxprune.channels.links import AxisRef, Barrier, Contract, Inner, Ints, Link, Role, Tie

KV_HEADS, REPEATS, HEAD_DIM, VALUE_DIM = -1, -2, -3, -4
RUNS = -5  # and below: the runs of a packed axis
_ROLES = {KV_HEADS: "head", REPEATS: "query_head", HEAD_DIM: "head_dim", VALUE_DIM: "head_dim"}

QUERY = (KV_HEADS, REPEATS, HEAD_DIM)
KEY = (KV_HEADS, HEAD_DIM)
VALUE = (KV_HEADS, VALUE_DIM)
OUTPUT = (KV_HEADS, REPEATS, VALUE_DIM)
HEADS = (KV_HEADS, REPEATS)


class Attention(NamedTuple):
    """The axes inside one attention node: its name, and the size of each digit. Digits of size 1 take no part."""

    node: str
    sizes: dict[int, int]

    def declare(self) -> Iterator[Link]:
        """The axes inside and what they are; queries and keys are contracted over the head dimension."""
        for place, count in self.sizes.items():
            if count != 1:
                yield Inner(self._ref(place), count)
                yield Role(self._ref(place), _ROLES[place])
        if self.sizes[HEAD_DIM] != 1:
            yield Contract(self._ref(HEAD_DIM))

    def one_head_dim(self) -> Iterator[Link]:
        """Kernels that keep keys and values in one cache want their head dimensions equal."""
        if self.sizes[HEAD_DIM] == self.sizes[VALUE_DIM] != 1:
            yield Tie(self._ref(HEAD_DIM), self._ref(VALUE_DIM))

    def joint(self, whole: AxisRef, places: tuple[int, ...]) -> Iterator[Link]:
        """The elements of an axis are these digits, outermost first."""
        live = [place for place in places if self.sizes[place] != 1]
        if live:
            yield Tie(self._ref(*live), whole)

    def packed(
        self, whole: gs.Tensor, axis: int, parts: tuple[tuple[int, ...], ...], first: int = RUNS
    ) -> Iterator[Link]:
        """An axis holds runs one after the other, each made of these digits; `first` and below name the runs."""
        total = sum(map(self.length, parts))
        if size(whole, axis) != total:
            raise Barrier(f"{whole.name}:{axis} has {whole.shape[axis]} elements, not {total}")
        start = 0
        for number, places in enumerate(parts):
            run, length = self._ref(first - number), self.length(places)
            yield Inner(run, length)
            yield Tie(ref(whole, axis), run, np.arange(start, start + length))
            yield from self.joint(run, places)
            start += length

    def length(self, places: tuple[int, ...]) -> int:
        """The number of elements that these digits make."""
        return int(np.prod([self.sizes[place] for place in places]))

    def at(self, tensor: gs.Tensor | None, axes: dict[int, tuple[int, ...]]) -> Iterator[Link]:
        """What these axes of a tensor are, where there is one. Barrier where one has another size."""
        if tensor is None:
            return
        for axis, places in axes.items():
            if size(tensor, axis) != self.length(places):
                raise Barrier(f"{tensor.name}:{axis} has {tensor.shape[axis]} elements, not {self.length(places)}")
            yield from self.joint(ref(tensor, axis), places)

    def bias(self, tensor: gs.Tensor | None) -> Iterator[Link]:
        """A bias on the scores: (batch or 1, heads or 1, ...)."""
        if tensor is None or rank(tensor) < 3:
            return
        axis = rank(tensor) - 3
        if size(tensor, axis) is None:
            raise Barrier(f"{tensor.name}:{axis} may be the heads: its size is dynamic")
        if size(tensor, axis) != 1:
            yield from self.at(tensor, {axis: HEADS})

    def _ref(self, *places: int) -> AxisRef:
        return AxisRef(self.node, places)


def attention(node: gs.Node, heads: int, kv_heads: int, head_dim: int, value_dim: int) -> Attention:
    """Barrier where the counts do not make sense."""
    if min(heads, kv_heads, head_dim, value_dim) < 1 or heads % kv_heads:
        raise Barrier(f"{heads} heads, {kv_heads} of them for keys, of size {head_dim} and {value_dim}")
    sizes = {KV_HEADS: kv_heads, REPEATS: heads // kv_heads, HEAD_DIM: head_dim, VALUE_DIM: value_dim}
    return Attention(ir.node_key(node), sizes)


def share(total: int, parts: int, what: str) -> int:
    """total / parts. Barrier where that is no whole number."""
    if parts < 1 or total % parts:
        raise Barrier(f"{total} {what} do not make {parts} heads")
    return total // parts


def digits_kept(kept: Ints, *sizes: int) -> list[int]:
    """How many values of each digit are left among the kept elements of an axis of these digits, outermost first."""
    counts = []
    for place, count in enumerate(sizes):
        counts.append(len(np.unique(kept // int(np.prod(sizes[place + 1 :])) % count)))
    return counts


def keep_scale(node: gs.Node, head_dim: int, *, unset: float | None = None) -> None:
    """Makes the default scale explicit: it is that of the original head dimension."""
    if ir.attribute(node, "scale") in (None, unset):
        node.attrs["scale"] = float(1 / np.sqrt(head_dim))


def kept(cut: Cut, tensor: gs.Tensor, axis: int, *sizes: int) -> list[int]:
    """`digits_kept` of an axis of a tensor."""
    return digits_kept(cut.kept(tensor, axis), *sizes)
