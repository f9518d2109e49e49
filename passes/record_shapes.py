"""Writes down the sizes that follow from shape arithmetic, where shape inference alone finds none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.symbolic import Dim, Size, analyze

_INPUT = "input:"


@dataclass(frozen=True)
class RecordShapes:
    """Record the shapes of inner tensors.

    ONNX inference does not follow values, so it knows no size behind ``Expand`` or ``Reshape`` to a computed shape, not
    even those entries that are constants: a mask expanded to ``(batch, 1, 5, 5)`` might as well have heads. Sizes that
    are not known keep the axes that meet them.

    Rewrites:
      1. A dimension that the symbolic analysis (:mod:`passes.symbolic`) knows is recorded as that number, or by the
         name of the graph input's dimension that it equals.
    Requires: dimensions of graph inputs with the same name are equal, as the specification says.
    Guarantees: nodes and weights are as they were; a number that was recorded stays.
    Leaves alone: graph inputs and outputs.
    Options: none.
    References: ONNX operator specification, Expand, Reshape, ConstantOfShape.
    """

    name: ClassVar[str] = "record-shapes"
    promise: ClassVar[Promise] = "exact"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Analyse once, then record."""
        if not model.graph.nodes:
            return PassResult(False)
        facts, counts = analyze(model, ctx), Counter[str]()
        signature = {tensor.name for tensor in (*model.graph.inputs, *model.graph.outputs)}
        for tensor in ir.tensors(model).values():
            sizes = facts.shape(tensor)
            if sizes is None or tensor.name in signature or not isinstance(tensor, gs.Variable):
                continue
            found, dtype = _recorded(tensor.shape, sizes), tensor.dtype or facts.types.get(tensor.name)
            if dtype is not None and found != tensor.shape:
                tensor.dtype, tensor.shape = dtype, found
                counts["shape"] += 1
        return PassResult.of(counts)


def _recorded(old: list[int | str | None] | None, sizes: list[Size]) -> list[int | str | None]:
    if old is None or len(old) != len(sizes):
        old = [None] * len(sizes)
    return [before if isinstance(before, int) else _name(size, before) for before, size in zip(old, sizes, strict=True)]


def _name(size: Size, before: str | None) -> int | str | None:
    """The number; the name of the graph input's dimension; else what was there."""
    if not isinstance(size, Dim):
        return size
    names, factor = next(iter(size.terms.items()))
    single = len(size.terms) == len(names) == factor == 1
    return names[0].removeprefix(_INPUT) if single and names[0].startswith(_INPUT) else before
