"""Removes operators that hand their input through unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.dtypes import from_numpy
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.edits import Editor, int_list, is_standard
from passes.symbolic import Facts, analyze
from passes.symbolic.values import axes_of, slice_bounds

Rule = Callable[["_Rewriter", ir.Node], gs.Tensor | None]
_SAME_ELEMENTS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_IDEMPOTENT = ("Relu", "Abs", "Ceil", "Floor", "Round", "Sign")
_INVOLUTIONS = ("Neg", "Not")


@dataclass(frozen=True)
class EliminateIdentities:
    """Let readers of a node that changes nothing read the node's input.

    Rewrites:
      1. ``Identity``; ``Dropout`` at inference; ``Cast`` to the type that is there; ``Concat``, ``Sum``, ``Max``,
         ``Min``, ``Mean`` of one tensor; ``Split`` into one; ``Clip`` without bounds.
      2. ``CastLike`` becomes ``Cast`` (or nothing) when the wanted type is known.
      3. ``Reshape``, ``Flatten``, ``Squeeze``, ``Unsqueeze``, ``Expand``, ``Tile``, ``Slice``, ``Pad``, ``Resize``,
         pools and reductions that leave shape and elements as they are; also a chain of the first four that ends with
         the shape it began with (``Unsqueeze`` then ``Squeeze``).
      4. ``Transpose`` in order; two in a row become one or none.
      5. ``Add``/``Sub`` of 0, ``Mul``/``Div``/``Pow`` by 1, ``And`` with true, ``Or`` with false, where the constant
         does not widen the shape.
      6. ``Relu``, ``Abs``, ``Ceil``, ``Floor``, ``Round``, ``Sign`` of themselves; ``Neg`` and ``Not`` twice.
    Requires: nothing; sizes are followed symbolically, so dynamic shapes are compared too.
    Guarantees: equal outputs (the sign of a zero may differ after ``x + 0``).
    Leaves alone: a node between a graph input or initializer and a graph output, which gives the output its name;
    dropout in training mode; everything in other domains.
    Options: none.
    References: ONNX operator specification.
    """

    name: ClassVar[str] = "eliminate-identities"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Visit the nodes once, in order, so that chains collapse from their start."""
        if not model.graph.nodes:
            return PassResult(False)
        rewriter = _Rewriter(model, ctx)
        for node in list(model.graph.nodes):
            if not ir.domain(node) and node.op not in rewriter.local and node.outputs and node.outputs[0].name:
                rewriter.visit(node)
        rewriter.editor.finish()
        return PassResult.of(rewriter.counts)


class _Rewriter:
    def __init__(self, model: ir.Model, ctx: PassContext) -> None:
        self.editor = Editor(model)
        asked = any(_asks_for_sizes(node) for node in model.graph.nodes)
        self.facts = analyze(model, ctx) if asked else Facts(model.opset())
        self.counts: Counter[str] = Counter()
        self.local = {function.name for function in model.header.functions}
        self.opset = model.opset()

    def visit(self, node: ir.Node) -> None:
        rule = RULES.get(node.op)
        source = rule(self, node) if rule is not None else None
        op = node.op
        if source is not None and self.editor.bypass(node, source):
            self.counts[op] += 1

    def same_shape(self, node: ir.Node, source: gs.Tensor | None = None) -> bool:
        """Whether the output has the shape of ``source`` (default: the first input) for every input of the model."""
        before = self.facts.shape(node.inputs[0] if source is None else source)
        return before is not None and before == self.facts.shape(node.outputs[0])

    def absent(self, node: ir.Node, position: int) -> bool:
        return len(node.inputs) <= position or not node.inputs[position].name


def _first(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    return node.inputs[0]


def _single(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _split(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    return node.inputs[0] if len(node.outputs) == 1 and rewriter.same_shape(node) else None


def _dropout(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    if any(tensor.outputs for tensor in node.outputs[1:]):
        return None
    if rewriter.opset < 7:
        return node.inputs[0] if ir.attribute(node, "is_test", 0) else None
    if rewriter.opset < 12 or rewriter.absent(node, 2):
        return node.inputs[0]
    training = rewriter.editor.constant(node.inputs[2])
    return node.inputs[0] if training is not None and not training.any() else None


def _clip(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    bounded = "min" in node.attrs or "max" in node.attrs
    free = rewriter.absent(node, 1) and rewriter.absent(node, 2) and not bounded
    return node.inputs[0] if free and rewriter.opset >= 6 else None


def _cast(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    dtype, target = rewriter.facts.types.get(node.inputs[0].name), ir.attribute(node, "to")
    same = dtype is not None and isinstance(target, int) and from_numpy(dtype) == target
    return node.inputs[0] if same else None


def _cast_like(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    """Rewrite 2."""
    dtype = rewriter.facts.types.get(node.inputs[1].name)
    if dtype is None:
        return None
    del node.inputs[1]
    node.op = "Cast"
    node.attrs["to"] = from_numpy(dtype)
    rewriter.counts["CastLike"] += 1
    return _cast(rewriter, node)


def _same_elements(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    """Rewrite 3 for nodes that keep the elements and their order: go back as far as the shape is the same."""
    tensor, found = node.inputs[0], None
    while True:
        if rewriter.same_shape(node, tensor):
            found = tensor
        maker = ir.producer(tensor)
        if maker is None or not is_standard(maker, *_SAME_ELEMENTS):
            return found
        tensor = maker.inputs[0]


def _same_shape(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    return node.inputs[0] if rewriter.same_shape(node) else None


def _tile(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    repeats = rewriter.facts.input_value(node, 1)
    return node.inputs[0] if repeats is not None and all(value == 1 for value in repeats.flat) else None


def _slice(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    bounds = slice_bounds(node, rewriter.facts)
    forward = bounds is not None and all(step > 0 for _, _, _, step in bounds)
    return node.inputs[0] if forward and rewriter.same_shape(node) else None


def _pad(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    pads = int_list(node, "pads", 1, rewriter.editor)
    return node.inputs[0] if pads is not None and not any(pads) else None


def _resize(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    cropped = ir.attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    position = 2 if node.op == "Resize" and rewriter.opset >= 11 else 1
    scales = rewriter.editor.constant(node.inputs[position]) if not rewriter.absent(node, position) else None
    unit = scales is not None and scales.size > 0 and bool((scales == 1).all())
    return node.inputs[0] if unit and not cropped and rewriter.absent(node, 3) else None


def _pool(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    kernel = ir.attribute(node, "kernel_shape") or []
    strides = ir.attribute(node, "strides") or [1]
    pads = ir.attribute(node, "pads") or [0]
    unit = set(kernel) == {1} and set(strides) == {1} and not any(pads)
    return node.inputs[0] if unit and not any(tensor.outputs for tensor in node.outputs[1:]) else None


def _global_pool(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    shape = rewriter.facts.shape(node.inputs[0])
    return node.inputs[0] if shape is not None and all(size == 1 for size in shape[2:]) else None


def _reduce(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    shape, axes = rewriter.facts.shape(node.inputs[0]), axes_of(node, rewriter.facts)
    if shape is None or not axes or not ir.attribute(node, "keepdims", 1):
        return None
    return node.inputs[0] if all(shape[axis] == 1 for axis in axes) else None


def _transpose(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    """Rewrite 4."""
    perm = ir.attribute(node, "perm")
    if not isinstance(perm, list):
        return None
    maker = ir.producer(node.inputs[0])
    inner = ir.attribute(maker, "perm") if maker is not None and is_standard(maker, "Transpose") else None
    if maker is not None and isinstance(inner, list) and len(inner) == len(perm):
        perm = [inner[axis] for axis in perm]
        node.attrs["perm"] = perm
        node.inputs[0] = maker.inputs[0]
        rewriter.counts["Transpose"] += 1
    return node.inputs[0] if perm == list(range(len(perm))) else None


_NEUTRAL: dict[str, float] = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1, "And": True, "Or": False}


def _neutral(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    """Rewrite 5."""
    if len(node.inputs) != 2:
        return None
    commutes = node.op in ("Add", "Mul", "And", "Or")
    for position in (1, 0) if commutes else (1,):
        source = node.inputs[1 - position]
        if _is_filled_with(rewriter, node.inputs[position], _NEUTRAL[node.op]) and rewriter.same_shape(node, source):
            return source
    return None


def _is_filled_with(rewriter: _Rewriter, tensor: gs.Tensor, value: float) -> bool:
    values = rewriter.editor.constant(tensor)
    return values is not None and values.size > 0 and values.dtype.kind in "fiub" and bool((values == value).all())


def _repeated(rewriter: _Rewriter, node: ir.Node) -> gs.Tensor | None:
    """Rewrite 6."""
    maker = ir.producer(node.inputs[0])
    if maker is None or not is_standard(maker, node.op):
        return None
    return node.inputs[0] if node.op in _IDEMPOTENT else maker.inputs[0]


def _asks_for_sizes(node: ir.Node) -> bool:
    """Whether the node's rule may look at sizes or types. Following them through a graph costs more than all else."""
    rule = RULES.get(node.op)
    if rule is _neutral:
        return any(isinstance(tensor, gs.Constant) or _is_constant_node(tensor) for tensor in node.inputs)
    return rule is not None and rule not in _WITHOUT_SIZES


def _is_constant_node(tensor: gs.Tensor) -> bool:
    maker = ir.producer(tensor)
    return maker is not None and maker.op == "Constant"


_WITHOUT_SIZES = frozenset({_first, _single, _dropout, _clip, _transpose, _repeated})
RULES: dict[str, Rule] = {
    "Identity": _first,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Split": _split,
    "Dropout": _dropout,
    "Clip": _clip,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Expand": _same_shape,
    "Tile": _tile,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "Transpose": _transpose,
    **dict.fromkeys(_SAME_ELEMENTS, _same_elements),
    **dict.fromkeys(_NEUTRAL, _neutral),
    **dict.fromkeys((*_IDEMPOTENT, *_INVOLUTIONS), _repeated),
}
