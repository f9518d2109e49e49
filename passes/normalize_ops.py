"""Brings different spellings of one computation to one form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, ints, is_standard
from passes.resolve_shapes import reshape_target
from passes.symbolic import Dim, Facts, analyze
from passes.symbolic.values import axes_of

_SAME_ELEMENTS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_WHOLE_AXIS = np.iinfo(np.int64).max
_FIRST_SLICE_WITH_INPUTS = 10
_FIRST_FLATTEN_OF_ANY_TYPE = 9
_REWRITTEN = frozenset(
    {
        "ReduceMean",
        "ReduceMax",
        "AveragePool",
        "MaxPool",
        "Gather",
        "Sum",
        "Clip",
        "Range",
        "Reshape",
        "Squeeze",
        "Slice",
    }
)
"""Operators that a rewrite starts from: without one of them nothing has to be known about sizes."""
Bound = tuple[int, int, int]


@dataclass(frozen=True)
class NormalizeOps:
    """Write equal computations with equal operators, so that later passes see one form.

    Rewrites:
      1. ``ReduceMean`` and ``ReduceMax`` over all spatial axes (two or more) become ``GlobalAveragePool`` and
         ``GlobalMaxPool``, followed by ``Flatten`` when the axes are dropped.
      2. ``AveragePool`` and ``MaxPool`` whose window is the whole map become ``GlobalAveragePool``, ``GlobalMaxPool``.
      3. ``Reshape`` and ``Squeeze`` to two axes of which the first stays become ``Flatten``.
      4. ``Reshape`` of a ``Reshape``, ``Flatten``, ``Squeeze`` or ``Unsqueeze`` reads the tensor before it.
      5. ``Slice`` with constant bounds names only the axes that it cuts, in order; slices of different axes in a row
         become one; ``Gather`` of evenly spaced constant indices becomes ``Slice``.
      6. ``Range`` of one-element vectors, which runtimes refuse once they know the shape, reads scalars.
      7. ``Sum`` of two tensors becomes ``Add``; ``Clip`` from 0 up becomes ``Relu``.
    Requires: nothing; sizes are followed symbolically.
    Guarantees: outputs within the tolerance: a global pool may add in another order, all else is bit-equal.
    Leaves alone: reductions of one axis (a mean over the last one belongs to a normalisation), of batch or channels;
    slices and gathers with computed bounds; types other than float32 in 1, 2 and 7.
    Options: none.
    References: ONNX operator specification.
    """

    name: ClassVar[str] = "normalize-ops"
    promise: ClassVar[Promise] = "tolerance"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Visit the nodes once, in order."""
        if not any(node.op in _REWRITTEN for node in model.graph.nodes):
            return PassResult(False)
        rewriter = _Rewriter(model, ctx)
        for node in list(model.graph.nodes):
            if not ir.domain(node) and node.op not in rewriter.local and len(node.outputs) >= 1:
                rewriter.visit(node)
        rewriter.editor.finish()
        return PassResult.of(rewriter.counts)


class _Rewriter:
    def __init__(self, model: ir.Model, ctx: PassContext) -> None:
        self.editor = Editor(model)
        self.facts: Facts = analyze(model, ctx)
        self.counts: Counter[str] = Counter()
        self.local = {function.name for function in model.header.functions}
        self.opset = model.opset()

    def visit(self, node: ir.Node) -> None:
        if node.op in ("ReduceMean", "ReduceMax"):
            self._reduction(node)
        elif node.op in ("AveragePool", "MaxPool"):
            self._whole_window(node)
        elif node.op == "Gather":
            self._gather(node)
        elif node.op == "Sum" and len(node.inputs) == 2 and self.opset >= 8:
            self._become(node, "Add", node.inputs[:2])
        elif node.op == "Clip":
            self._clip(node)
        elif node.op == "Range":
            self._range(node)
        if node.op == "Reshape":
            self._merge_reshapes(node)
        if node.op in ("Reshape", "Squeeze"):
            self._flatten(node)
        if node.op == "Slice":
            self._slice(node)

    def _become(self, node: ir.Node, op: str, inputs: list[ir.Variable]) -> None:
        self.counts[f"{node.op} to {op}"] += 1
        node.op = op
        node.attrs.clear()
        kept = list(inputs)
        node.inputs.clear()
        node.inputs.extend(kept)

    def _is_float(self, node: ir.Node) -> bool:
        dtype = self.facts.types.get(node.inputs[0].name)
        # the global pools of common runtimes know no other type
        return dtype is not None and np.dtype(dtype) == np.float32

    def _reduction(self, node: ir.Node) -> None:
        """Rewrite 1."""
        shape, axes = self.facts.shape(node.inputs[0]), axes_of(node, self.facts)
        if shape is None or len(shape) < 4 or not axes or not self._is_float(node):
            return
        if sorted(axis % len(shape) for axis in axes) != list(range(2, len(shape))):
            return
        keep = ir.attribute(node, "keepdims", 1)
        self._become(node, "GlobalAveragePool" if node.op == "ReduceMean" else "GlobalMaxPool", node.inputs[:1])
        if not keep:
            self._insert_flatten(node, [*shape[:2], *[1] * (len(shape) - 2)])

    def _insert_flatten(self, node: ir.Node, shape: list[int | Dim]) -> None:
        output = node.outputs[0]
        sizes = [size if isinstance(size, int) else None for size in shape]
        pooled = ir.Variable(self.editor.new_name(f"{output.name}_pooled"), self.facts.types.get(output.name), sizes)
        node.outputs[0] = pooled
        self.facts.shapes[pooled.name] = list(shape)
        flatten = ir.Node("Flatten", "", {"axis": 1}, [pooled], [output])
        self.editor.insert_after(node, flatten)

    def _whole_window(self, node: ir.Node) -> None:
        """Rewrite 2."""
        shape, kernel = self.facts.shape(node.inputs[0]), ir.attribute(node, "kernel_shape")
        if shape is None or kernel is None or not self._is_float(node) or len(node.outputs) > 1:
            return
        plain = not any(ir.attribute(node, "pads") or []) and set(ir.attribute(node, "dilations") or [1]) == {1}
        if plain and shape[2:] == kernel and ir.attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID"):
            self._become(node, f"Global{node.op}", node.inputs[:1])

    def _flatten(self, node: ir.Node) -> None:
        """Rewrite 3."""
        before, after = self.facts.shape(node.inputs[0]), self.facts.shape(node.outputs[0])
        if self.opset < _FIRST_FLATTEN_OF_ANY_TYPE and not self._is_float(node):
            return
        if before is None or after is None or len(after) != 2 or len(before) < 3 or before[0] != after[0]:
            return
        self._become(node, "Flatten", node.inputs[:1])
        node.attrs["axis"] = 1

    def _merge_reshapes(self, node: ir.Node) -> None:
        """Rewrite 4."""
        after = self.facts.shape(node.outputs[0])
        maker = ir.producer(node.inputs[0])
        if after is None or maker is None or not is_standard(maker, *_SAME_ELEMENTS) or len(node.inputs) < 2:
            return
        source = maker.inputs[0]
        target = reshape_target(self.facts.shape(source), after)
        if target is None:
            return
        node.inputs[0] = source
        node.attrs.pop("allowzero", None)
        self.editor.set_input(node, 1, self.editor.new_constant(f"{ir.node_key(node)}_shape", ints(target)))
        self.counts["merged Reshape"] += 1

    def _gather(self, node: ir.Node) -> None:
        """Rewrite 5 for Gather."""
        indices, shape = self.editor.constant(node.inputs[1]), self.facts.shape(node.inputs[0])
        if indices is None or shape is None or indices.ndim != 1 or self.opset < _FIRST_SLICE_WITH_INPUTS:
            return
        axis = ir.attribute(node, "axis", 0) % max(len(shape), 1)
        picked = [int(index) for index in indices]
        size = shape[axis]
        if len(picked) < 2 or min(picked) < 0 or not isinstance(size, int) or self.editor.is_constant(node.inputs[0]):
            return
        steps = {b - a for a, b in pairwise(picked)}
        if len(steps) == 1 and (step := steps.pop()) > 0 and picked[-1] < size:
            self._become(node, "Slice", node.inputs[:1])
            self._set_bounds(node, {axis: (picked[0], picked[-1] + 1, step)})

    def _slice(self, node: ir.Node) -> None:
        """Rewrite 5 for Slice."""
        bounds = self._bounds(node)
        if bounds is None:
            return
        source, merged = node.inputs[0], dict(bounds)
        maker = ir.producer(source)
        if maker is not None and is_standard(maker, "Slice") and self.editor.only_use(source) is node:
            inner = self._bounds(maker)
            if inner is not None and not inner.keys() & merged.keys():
                merged.update(inner)
                node.inputs[0] = maker.inputs[0]
        if node.inputs[0] is source and self._is_normal(node, merged):
            return
        if merged:
            self._set_bounds(node, merged)
            self.counts["Slice"] += 1

    def _bounds(self, node: ir.Node) -> dict[int, Bound] | None:
        """What a Slice cuts, by axis; None unless all of it is constant and given by inputs."""
        shape = self.facts.shape(node.inputs[0])
        if self.opset < _FIRST_SLICE_WITH_INPUTS or shape is None or len(node.inputs) < 3:
            return None
        read = [self.editor.constant(tensor) if tensor.name else None for tensor in node.inputs[1:]]
        if any(values is None for values, tensor in zip(read, node.inputs[1:], strict=True) if tensor.name):
            return None
        lists = [None if values is None else [int(value) for value in values] for values in read]
        starts, ends = lists[0] or [], lists[1] or []
        axes = lists[2] if len(lists) > 2 and lists[2] is not None else list(range(len(starts)))
        steps = lists[3] if len(lists) > 3 and lists[3] is not None else [1] * len(starts)
        cuts = {a % len(shape): (s, e, t) for s, e, a, t in zip(starts, ends, axes, steps, strict=True)}
        return {axis: cut for axis, cut in cuts.items() if not self._is_whole(shape[axis], cut)}

    def _is_whole(self, size: int | Dim, cut: Bound) -> bool:
        start, end, step = cut
        if isinstance(size, int):
            return step > 0 and range(*slice(start, end, step).indices(size)) == range(size)
        return step == 1 and start == 0 and end >= np.iinfo(np.int32).max

    def _is_normal(self, node: ir.Node, bounds: dict[int, Bound]) -> bool:
        axes = self.editor.constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3].name else None
        steps = any(step != 1 for _, _, step in bounds.values())
        return axes is not None and list(axes) == sorted(bounds) and steps == (len(node.inputs) > 4)

    def _set_bounds(self, node: ir.Node, bounds: dict[int, Bound]) -> None:
        axes = sorted(bounds)
        columns = [[bounds[axis][part] for axis in axes] for part in range(3)]
        source, key = node.inputs[0], ir.node_key(node)
        node.inputs.clear()
        node.inputs.append(source)
        parts = {"starts": columns[0], "ends": columns[1], "axes": axes, "steps": columns[2]}
        if set(columns[2]) == {1}:
            del parts["steps"]
        for name, values in parts.items():
            node.inputs.append(self.editor.new_constant(f"{key}_{name}", ints(values)))

    def _range(self, node: ir.Node) -> None:
        """Rewrite 6."""
        for position, tensor in enumerate(node.inputs):
            if self.facts.shape(tensor) != [1]:
                continue
            scalar = ir.Variable(self.editor.new_name(f"{tensor.name}_scalar"), self.facts.types.get(tensor.name), [])
            target = self.editor.new_constant("scalar", ints([]))
            self.editor.insert_before(node, ir.Node("Reshape", "", {}, [tensor, target], [scalar]))
            node.inputs[position] = scalar
            self.counts["Range"] += 1

    def _clip(self, node: ir.Node) -> None:
        """Rewrite 7 for Clip."""
        if not self._is_float(node) or "max" in node.attrs or (len(node.inputs) > 2 and node.inputs[2].name):
            return
        if len(node.inputs) > 1 and node.inputs[1].name:
            values = self.editor.constant(node.inputs[1])
            low = None if values is None or values.size != 1 else float(values.reshape(-1)[0])
        else:
            low = ir.attribute(node, "min")
        if low == 0.0 and self.opset >= 6:
            self._become(node, "Relu", node.inputs[:1])
