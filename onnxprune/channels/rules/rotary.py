"""RotaryEmbedding: elements of a head turn in pairs, (j, j + r/2) or (2j, 2j + 1), by column j of the tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import integer, rank, ref, static
from onnxprune.channels.links import AxisRef, Barrier, Inner, Ints, Link, Role, Tie
from onnxprune.channels.registry import op_rule, resize_hook
from onnxprune.channels.rules.heads import kept, share

_HEADS, _DIM = -1, -2
MICROSOFT = "com.microsoft"


@op_rule("RotaryEmbedding", since=23)
@op_rule("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(node: gs.Node, opset: int) -> Iterator[Link]:
    """(batch, heads, length, size), or (batch, length, heads * size). Both elements of a pair leave together."""
    x, y, tables = node.inputs[0], node.outputs[0], _tables(node)
    heads, dim = _sizes(node)
    if rank(x) == 4:
        turned = ref(x, 3)
        yield from (Tie(ref(x, axis), ref(y, axis)) for axis in (1, 3))
    else:
        turned = AxisRef(ir.node_key(node), (_DIM,))
        yield Inner(turned, dim)
        yield Inner(AxisRef(ir.node_key(node), (_HEADS,)), heads)
        yield Role(AxisRef(ir.node_key(node), (_HEADS,)), "head")
        yield Tie(ref(x, 2), ref(y, 2))
        yield Tie(AxisRef(ir.node_key(node), (_HEADS, _DIM) if heads > 1 else (_DIM,)), ref(x, 2))
    yield Role(turned, "head_dim")
    for table in tables:
        yield Tie(
            ref(table, -1), turned, pairs(static(table, -1), dim, interleaved=bool(integer(node, "interleaved", 0)))
        )


def pairs(columns: int, dim: int, *, interleaved: bool) -> Ints:
    """The table column of each element of a head, -1 for those that do not turn. Barrier where they do not fit."""
    if 2 * columns > dim:
        raise Barrier(f"tables of {columns} columns turn more than {dim} elements")
    turning = np.arange(2 * columns)
    column = turning // 2 if interleaved else turning % columns
    return np.concatenate([column, np.full(dim - 2 * columns, -1)])


def _tables(node: gs.Node) -> list[gs.Tensor]:
    return list(node.inputs[2:4] if ir.domain(node) else node.inputs[1:3])


def _sizes(node: gs.Node) -> tuple[int, int]:
    """Heads and the size of one. Without a number of heads, all of a head turns."""
    x = node.inputs[0]
    if rank(x) == 4:
        return static(x, 1), static(x, 3)
    hidden, heads = static(x, 2), integer(node, "num_heads", 0)
    heads = heads or share(hidden, 2 * static(_tables(node)[0], -1), "elements")
    return heads, share(hidden, heads, "elements")


@resize_hook("RotaryEmbedding")
@resize_hook("RotaryEmbedding", domain=MICROSOFT)
def resize_rotary_embedding(node: gs.Node, opset: int, cut: Cut) -> None:
    x, table = node.inputs[0], _tables(node)[0]
    if integer(node, "num_heads", 0):
        node.attrs["num_heads"] = len(cut.kept(x, 1)) if rank(x) == 4 else kept(cut, x, 2, *_sizes(node))[0]
    if integer(node, "rotary_embedding_dim", 0):
        node.attrs["rotary_embedding_dim"] = 2 * len(cut.kept(table, rank(table) - 1))
