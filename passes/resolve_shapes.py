"""Turns shape arithmetic into constants wherever the operator's own conventions allow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise, Skip
from passes.edits import Editor, ints, is_standard
from passes.known_sizes import split_known
from passes.shapes import refresh
from passes.symbolic import Dim, Facts, Size, analyze, divide
from passes.symbolic.layout_rules import reshaped
from passes.symbolic.values import RULES, is_plain, slice_bounds

_SHAPED = frozenset({"Constant", "Shape", "Size", "Reshape", "Expand", "Slice", "Resize"})
_SAME_ELEMENTS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_WHOLE_AXIS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ResolveShapes:
    """Replace computed sizes by constants, also when batch, sequence or image sizes are dynamic.

    Sizes are followed symbolically from the graph inputs (:mod:`passes.symbolic`), so that ``Shape -> Gather ->
    Unsqueeze -> Concat`` is understood whatever its spelling.

    Rewrites:
      1. An integer or boolean tensor whose elements are all known numbers becomes an initializer.
      2. The target of ``Reshape`` becomes a constant: numbers where sizes are known, 0 where the size is the input's
         at the same position, -1 for at most one other. Where that does not suffice, the node reads an
         earlier tensor with the same elements, if one fits.
      3. The target of ``Expand`` becomes a constant: 1 where the input already has the wanted size.
      4. ``Slice`` up to the end of an axis ends at the largest integer.
      5. ``Resize`` to a whole multiple of the input's size uses constant scales.
      6. What still reads a ``Shape`` of an inner tensor, but only dimensions of a graph input, reads the shape of that
         input.
      7. Of a computed target of ``Reshape``, ``Expand`` or ``Resize`` that stays dynamic, the known sizes become
         constants: a ``Concat`` puts them between what is picked from the computed vector.
    Requires: dimensions of graph inputs with the same name are equal, as the specification says.
    Guarantees: bit-equal outputs for every input on which the model ran, except that a -1 cannot stand beside a
    dimension of size zero. Targets of reshapes name every known size, so channel sizes are numbers afterwards.
    Leaves alone: targets with two sizes that are neither known nor the input's at that position (said in ``skips``).
    Options: none.
    References: ONNX operator specification, Shape, Reshape, Expand, Slice, Resize.
    """

    name: ClassVar[str] = "resolve-shapes"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Analyse once, then rewrite every node by what is known."""
        if not any(map(_resolvable, model.graph.nodes)):
            return PassResult(False)
        rewriter = _Rewriter(model, ctx)
        result = rewriter.run()
        if result.modified:
            refresh(model)
        return result


def _resolvable(node: ir.Node) -> bool:
    """Whether a rewrite may start at this node: it measures or uses shapes, or computes with nothing but constants.

    Values that are known come from either, so a graph without such a node holds nothing to resolve.
    """
    if node.op in _SHAPED:
        return True
    operands = [tensor for tensor in node.inputs if tensor.name]
    return node.op in RULES and all(isinstance(ir.producer(t) or t, gs.Constant) for t in operands)


class _Rewriter:
    def __init__(self, model: ir.Model, ctx: PassContext) -> None:
        self.model = model
        self.editor = Editor(model)
        self.facts: Facts = analyze(model, ctx)
        self.counts: Counter[str] = Counter()
        self.skips: list[Skip] = []
        self.local = {function.name for function in model.header.functions}
        self.roots: dict[str, ir.Variable] = {}
        self.inputs = {tensor.name: tensor for tensor in model.graph.inputs}

    def run(self) -> PassResult:
        rules: dict[str, Callable[[ir.Node], None]] = {
            "Reshape": self._reshape,
            "Expand": self._expand,
            "Slice": self._slice,
            "Resize": self._resize,
        }
        for node in list(self.model.graph.nodes):
            if ir.domain(node) or node.op in self.local:
                continue
            self._make_constant(node)
            if node.op in rules and node.outputs:
                rules[node.op](node)
        for ops in (("Gather", "Slice"), ("Shape",)):
            self._sweep()
            for node in list(self.model.graph.nodes):
                if is_standard(node, *ops):
                    self._reroot(node)
            self.editor.finish()
        if self.counts["rerooted"]:
            self._sweep()
        return PassResult.of(self.counts, self.skips)

    def _make_constant(self, node: ir.Node) -> None:
        """Rewrite 1."""
        if node.op in ("Constant", "Identity") or len(node.outputs) != 1 or not node.outputs[0].name:
            return
        output = node.outputs[0]
        values, dtype = self.facts.value(output), self.facts.types.get(output.name)
        if values is None or dtype is None or np.dtype(dtype).kind not in "ib" or not is_plain(values):
            return
        self.editor.make_constant(output, values.astype(np.dtype(dtype)))
        self.counts["constant"] += 1

    def _set_target(self, node: ir.Node, position: int, values: Any, rule: str) -> None:
        """Make an input a constant of its own, unless it holds these values already."""
        old = self.editor.constant(node.inputs[position]) if len(node.inputs) > position else None
        if old is not None and np.array_equal(old, values) and old.dtype == values.dtype:
            return
        self.editor.set_input(node, position, self.editor.new_constant(f"{ir.node_key(node)}_{rule}", values))
        self.counts[rule] += 1

    def _skip(self, node: ir.Node, reason: str) -> None:
        self.skips.append(Skip(ir.node_key(node), reason))

    def _reshape(self, node: ir.Node) -> None:
        """Rewrite 2."""
        if len(node.inputs) < 2:
            return
        source, result = self.facts.shape(node.inputs[0]), self.facts.shape(node.outputs[0])
        dynamic = not self.editor.is_constant(node.inputs[1])
        if result is None:
            if dynamic:
                self._skip(node, "the shape that it reshapes to is not known")
            return
        target = reshape_target(source, result)
        if target is None:
            target = self._through_reshapes(node, result)
        if target is None:
            if dynamic:
                self._skip(node, "more than one size of its target is dynamic")
                self._split(node, 1)
            return
        literal = self.editor.constant(node.inputs[1])
        if literal is not None and not _improves(literal, target):
            return
        self._set_target(node, 1, ints(target), "shape")
        node.attrs.pop("allowzero", None)

    def _through_reshapes(self, node: ir.Node, result: list[Size]) -> list[int] | None:
        """A target for an earlier tensor with the same elements in the same order; ``node`` then reads that tensor."""
        tensor = node.inputs[0]
        while (maker := ir.producer(tensor)) is not None and is_standard(maker, *_SAME_ELEMENTS):
            tensor = maker.inputs[0]
            target = reshape_target(self.facts.shape(tensor), result)
            if target is not None:
                node.inputs[0] = tensor
                return target
        return None

    def _expand(self, node: ir.Node) -> None:
        """Rewrite 3."""
        dynamic = not self.editor.is_constant(node.inputs[1])
        source, target = self.facts.shape(node.inputs[0]), self.facts.input_value(node, 1)
        if source is None or target is None:
            if dynamic:
                self._skip(node, "the shape that it expands to is not known")
            return
        aligned: list[Size] = [*[1] * (target.size - len(source)), *source]
        offset = len(aligned) - target.size
        sizes = [1 if size == aligned[offset + axis] else size for axis, size in enumerate(target.reshape(-1))]
        if any(isinstance(size, Dim) for size in sizes):
            self._skip(node, "it expands to a dynamic size")
            self._split(node, 1)
            return
        self._set_target(node, 1, ints([int(size) for size in sizes]), "shape")

    def _slice(self, node: ir.Node) -> None:
        """Rewrite 4."""
        bounds, shape = slice_bounds(node, self.facts), self.facts.shape(node.inputs[0])
        if len(node.inputs) < 3 or bounds is None or shape is None or self.editor.is_constant(node.inputs[2]):
            return
        ends: list[int] = []
        for start, end, axis, step in bounds:
            if isinstance(start, Dim) or (isinstance(end, Dim) and (end != shape[axis] or step < 0)):
                return
            ends.append(_WHOLE_AXIS if isinstance(end, Dim) else int(end))
        dtype = self.facts.types.get(node.inputs[2].name)
        if dtype is None or np.dtype(dtype) == np.int64:
            self._set_target(node, 2, ints(ends), "ends")

    def _resize(self, node: ir.Node) -> None:
        """Rewrite 5."""
        if len(node.inputs) < 4 or not node.inputs[3].name or "axes" in node.attrs:
            return
        source, sizes = self.facts.shape(node.inputs[0]), self.facts.input_value(node, 3)
        policy = ir.attribute(node, "keep_aspect_ratio_policy", "stretch")
        if source is None or sizes is None or sizes.size != len(source) or policy != "stretch":
            return
        if ir.attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
            return
        ratios = [divide(new, old) for new, old in zip(sizes.reshape(-1), source, strict=True)]
        if any(not isinstance(ratio, int) or ratio < 1 for ratio in ratios):
            if not self.editor.is_constant(node.inputs[3]):
                self._skip(node, "it resizes to a dynamic size that is no whole multiple of its input's")
                self._split(node, 3)
            return
        scales = self.editor.new_constant(f"{ir.node_key(node)}_scales", np.array(ratios, dtype=np.float32))
        self.editor.set_input(node, 2, scales)
        del node.inputs[3]
        self.counts["scales"] += 1

    def _split(self, node: ir.Node, position: int) -> None:
        """Rewrite 7."""
        dtype = self.facts.types.get(node.inputs[position].name)
        if dtype is not None and np.dtype(dtype) == np.int64 and split_known(self.editor, self.facts, node, position):
            self.counts["split"] += 1

    def _sweep(self) -> None:
        """Unhook nodes that nothing reads any more, so that rewrite 6 sees only what is left."""
        for node in reversed(self.model.graph.nodes):
            unread = all(not tensor.outputs and tensor.name not in self.editor.fixed for tensor in node.outputs)
            if node.outputs and unread and not ir.domain(node):
                self.editor.remove(node)
        self.editor.finish()

    def _reroot(self, node: ir.Node) -> None:
        """Rewrite 6."""
        if len(node.outputs) != 1 or node.outputs[0].name in self.editor.fixed or not self._reads_inner_shape(node):
            return
        values, dtype = self.facts.value(node.outputs[0]), self.facts.types.get(node.outputs[0].name)
        if values is None or values.ndim > 1 or dtype is None or np.dtype(dtype) != np.int64:
            return
        sources = [self._source(value) for value in values.reshape(-1)]
        names = {source[0] for source in sources if source is not None}
        if None in sources or len(names) != 1:
            return
        axes = np.array([source[1] for source in sources if source is not None], dtype=np.int64).reshape(values.shape)
        root = self._shape_of(names.pop())
        self.counts["rerooted"] += 1
        if axes.tolist() == list(range(root.shape[0])):
            self.editor.redirect(node.outputs[0], root)
            self.editor.remove(node)
            return
        gather = ir.Node("Gather", "", {"axis": 0}, [root, self.editor.new_constant("axes", axes)], [])
        gather.outputs.append(self.editor.new_variable(f"{node.outputs[0].name}_size", node.outputs[0]))
        self.editor.insert_before(node, gather)
        self.editor.redirect(node.outputs[0], gather.outputs[0])
        self.editor.remove(node)

    def _reads_inner_shape(self, node: ir.Node) -> bool:
        makers = [ir.producer(node.inputs[0])] if node.op in ("Gather", "Slice") and not ir.domain(node) else []
        shape = node if is_standard(node, "Shape") else makers[0] if makers else None
        return shape is not None and is_standard(shape, "Shape") and shape.inputs[0].name not in self.inputs

    def _source(self, value: Size) -> tuple[str, int] | None:
        if not isinstance(value, Dim) or len(value.terms) != 1:
            return None
        ((names, factor),) = value.terms.items()
        return self.facts.sources.get(names[0]) if factor == 1 and len(names) == 1 else None

    def _shape_of(self, name: str) -> ir.Variable:
        if name not in self.roots:
            tensor = self.inputs[name]
            root = ir.Variable(self.editor.new_name(f"{name}_shape"), np.dtype(np.int64), [len(tensor.shape)])
            self.editor.insert_before(self.model.graph.nodes[0], ir.Node("Shape", "", {}, [tensor], [root]))
            self.roots[name] = root
        return self.roots[name]


def reshape_target(source: list[Size] | None, result: list[Size]) -> list[int] | None:
    """Return constants that reshape ``source`` to ``result``; None when two dynamic sizes have no constant."""
    target: list[int] = []
    for axis, size in enumerate(result):
        if isinstance(size, int) and size > 0:
            target.append(size)
        elif source is not None and axis < len(source) and source[axis] == size:
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) > 1 or (-1 in target and 0 in result):
        return None
    if source is not None and reshaped(source, list(target), False) != result:
        return None
    return target


def _improves(literal: np.ndarray[Any, Any], target: list[int]) -> bool:
    """Whether ``target`` says more than the constant that is there: a number for -1 or 0, or 0 for -1."""
    rank = {-1: 0, 0: 1}
    old = [rank.get(int(value), 2) for value in literal.reshape(-1)]
    new = [rank.get(value, 2) for value in target]
    return len(old) == len(new) and sum(new) > sum(old)
