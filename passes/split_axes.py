"""Splits axes before they are permuted rather than after, so that an axis means one thing all the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, ints, is_standard
from passes.resolve_shapes import reshape_target
from passes.symbolic import Facts, Size, analyze
from passes.symbolic.dims import product


@dataclass(frozen=True)
class SplitAxes:
    """Split axes in front of a ``Transpose``.

    Batched matrix products over one batch axis made exporters merge batch and heads, permute, and split them again.
    While they are merged, and the batch is dynamic, no single head can be named.

    Rewrites:
      1. ``Reshape -> Transpose -> Reshape`` where the last one only splits axes becomes ``Reshape -> Transpose``: the
         first one splits those axes as well, and the runs are permuted as wholes.
    Requires: the new target is constant (:func:`passes.resolve_shapes.reshape_target`).
    Guarantees: bit-equal outputs.
    Leaves alone: a last ``Reshape`` that merges axes; a ``Transpose`` that reads anything but a ``Reshape``.
    Options: none.
    References: ONNX operator specification, Reshape, Transpose.
    """

    name: ClassVar[str] = "split-axes"
    promise: ClassVar[Promise] = "exact"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Visit the nodes in order, so that a split moves through a row of permutations."""
        if not any(_behind_a_permuted_reshape(node) for node in model.graph.nodes):
            return PassResult(False)  # most models: sizes need not be followed for them
        editor, facts, counts = Editor(model), analyze(model, ctx), Counter[str]()
        for node in model.graph.nodes:
            if is_standard(node, "Reshape") and _split_early(node, editor, facts):
                counts["Reshape"] += 1
        editor.finish()
        return PassResult.of(counts)


def _behind_a_permuted_reshape(node: ir.Node) -> bool:
    if not is_standard(node, "Reshape"):
        return False
    maker = first = ir.producer(node.inputs[0])
    while maker is not None and is_standard(maker, "Transpose"):
        maker = ir.producer(maker.inputs[0])
    return maker is not None and maker is not first and is_standard(maker, "Reshape")


def _split_early(node: ir.Node, editor: Editor, facts: Facts) -> bool:
    before, after = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    runs = None if before is None or after is None else _runs(before, after)
    if before is None or after is None or runs is None:
        return False
    order, reshape = _permutations(node, len(before))
    if reshape is None or not is_standard(reshape, "Reshape") or reshape is ir.producer(node.inputs[0]):
        return False
    source = reshape.inputs[0]
    wide = [after[axis] for place in range(len(order)) for axis in runs[order.index(place)]]
    target = reshape_target(facts.shape(source), wide)
    if target is None:
        return False
    split = editor.new_variable(f"{node.outputs[0].name}_split", node.outputs[0])
    facts.shapes[split.name], split.shape = wide, None
    shape = editor.new_constant(f"{split.name}_shape", ints(target))
    editor.insert_before(node, ir.Node("Reshape", "", {}, [source, shape], [split]))
    start = {place: sum(len(runs[order.index(p)]) for p in range(place)) for place in order}
    perm = [start[place] + step for axis, place in enumerate(order) for step in range(len(runs[axis]))]
    node.op, node.attrs = "Transpose", {"perm": perm}
    node.inputs.clear()
    node.inputs.append(split)
    return True


def _permutations(node: ir.Node, rank: int) -> tuple[list[int], ir.Node | None]:
    """The axes that the transposes in front permute, all together, and the node before them."""
    order, maker = list(range(rank)), ir.producer(node.inputs[0])
    while maker is not None and is_standard(maker, "Transpose"):
        perm = ir.attribute(maker, "perm") or list(range(rank))[::-1]
        order = [perm[axis] for axis in order]
        maker = ir.producer(maker.inputs[0])
    return order, maker


def _runs(before: list[Size], after: list[Size]) -> list[list[int]] | None:
    """For each axis before the run of axes after that split it; None where one does not, or nothing is split."""
    found: list[list[int]] = []
    axis = 0
    for size in before:
        run = [axis]
        while run[-1] < len(after) and product([after[a] for a in run]) != size:
            run.append(run[-1] + 1)
        if run[-1] >= len(after):
            return None
        found.append(run)
        axis = run[-1] + 1
    if axis != len(after) or len(before) == len(after):
        return None
    return found
