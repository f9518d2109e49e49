"""Splits a computed vector of sizes into what is known and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.edits import Editor, ints, is_standard
from passes.symbolic import Dim, Facts
from passes.symbolic.values import slice_bounds


def split_known(editor: Editor, facts: Facts, node: ir.Node, position: int) -> bool:
    """Make an input of ``node``, a computed vector of sizes, a ``Concat`` with constants for the known ones.

    Returns False, and changes nothing, where no computed size is known.
    """
    split = _Split(editor, facts, node)
    if not split.has_known(node.inputs[position]):
        return False
    parts = list(split.parts(node.inputs[position]))
    whole = editor.new_variable(f"{ir.node_key(node)}_sizes", node.inputs[position])
    editor.insert_before(node, ir.Node("Concat", "", {"axis": 0}, parts, [whole]))
    editor.set_input(node, position, whole)
    return True


class _Split:
    """What is put in front of one node."""

    def __init__(self, editor: Editor, facts: Facts, node: ir.Node) -> None:
        self.editor, self.facts, self.node = editor, facts, node

    def has_known(self, vector: gs.Tensor) -> bool:
        """Whether some entry is computed although it is a known number."""
        maker, values = ir.producer(vector), self.facts.value(vector)
        if values is None or values.ndim != 1 or maker is None:
            return False
        if is_standard(maker, "Concat"):
            return any(map(self.has_known, maker.inputs))
        return not all(isinstance(size, Dim) for size in values)

    def parts(self, vector: gs.Tensor) -> Iterator[gs.Tensor]:
        """Vectors that give this one when they are joined: new constants, and what is computed."""
        maker, values = ir.producer(vector), self.facts.value(vector)
        if not self.has_known(vector) or maker is None or values is None:
            yield vector
        elif is_standard(maker, "Concat"):
            for part in maker.inputs:
                yield from self.parts(part)
        else:
            for known, run in groupby(range(len(values)), lambda entry: not isinstance(values[entry], Dim)):
                entries = list(run)
                if known:
                    sizes = ints([int(values[entry]) for entry in entries])
                    yield self.editor.new_constant(f"{ir.node_key(self.node)}_known", sizes)
                else:
                    yield self._picked(*self._origin(vector, entries))

    def _picked(self, vector: gs.Tensor, entries: list[int]) -> gs.Tensor:
        picked = ir.Variable(self.editor.new_name(f"{vector.name}_part"), np.dtype(np.int64), [len(entries)])
        inputs = [vector, self.editor.new_constant(f"{vector.name}_entries", ints(entries))]
        self.editor.insert_before(self.node, ir.Node("Gather", "", {"axis": 0}, inputs, [picked]))
        return picked

    def _origin(self, vector: gs.Tensor, entries: list[int]) -> tuple[gs.Tensor, list[int]]:
        """Where a Slice takes these entries from: sizes that it takes along are then read by nobody."""
        while (maker := ir.producer(vector)) is not None and is_standard(maker, "Slice"):
            bounds, values = slice_bounds(maker, self.facts), self.facts.value(maker.inputs[0])
            if bounds is None or len(bounds) != 1 or values is None:
                break
            start, end, _, step = bounds[0]
            if isinstance(start, Dim) or isinstance(end, Dim):
                break
            picked = range(len(values))[slice(int(start), int(end), step)] if step > 0 else range(0)
            if len(picked) <= max(entries):
                break
            vector, entries = maker.inputs[0], [picked[entry] for entry in entries]
        return vector, entries
