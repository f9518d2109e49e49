"""What can be pruned, and why the rest cannot: the part of the API that measures nothing and writes no model."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import onnx

from onnxprune import ir
from onnxprune.canonical import canonicalize_model
from onnxprune.channels import ChannelGraph, Kept, Shares, links_of
from onnxprune.channels import analyze as channel_graph
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.progress import Progress, SilentProgress

ModelLike = str | Path | onnx.ModelProto

_NEAR = 200  # nodes that are looked at for a tensor that is left


def analyze(
    model: ModelLike,
    *,
    granularity: str = "head",
    freeze: str | None = None,
    freeze_initializers: bool = False,
    keep_batchnorm: bool = False,
    progress: Progress | None = None,
) -> ChannelGraph:
    """The groups of coupled units of a model in canonical form, and why everything else is frozen."""
    return examine(
        model,
        granularity=granularity,
        freeze=freeze,
        freeze_initializers=freeze_initializers,
        keep_batchnorm=keep_batchnorm,
        progress=progress,
    ).graph


def rules(model: ModelLike, *, freeze_initializers: bool = False, keep_batchnorm: bool = False) -> list[str]:
    """One line a node of the model in canonical form: what it links, or why it is a barrier."""
    _, base = _canonical(model, freeze_initializers=freeze_initializers, keep_batchnorm=keep_batchnorm)
    linked = (links_of(node, base.opset(ir.domain(node))) for node in ir.all_nodes(base))
    return [f"{links.node} {links.op}: {links}" for links in linked]


@dataclass(frozen=True)
class Examined:
    """A model as it was given, its canonical form, and the channels of that. input_shapes: sizes to count MACs at."""

    source: ir.Model
    base: ir.Model
    graph: ChannelGraph
    given: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        """How many nodes the canonical form has, those of subgraphs included."""
        return sum(1 for _ in ir.all_nodes(self.base))

    @cached_property
    def input_shapes(self) -> dict[str, tuple[int, ...]] | None:
        """The input shapes that MACs are counted at: as given, else 1 for an open first axis and for others the size
        of synthetic data. None where an input has no shape to go by.
        """
        return _input_shapes(self.base, self.given)

    @cached_property
    def shares(self) -> Shares:
        """What share is prunable. Where the shapes inside cannot be found, no product counts: `macs` is 0."""
        shapes: Mapping[str, Sequence[int]] = {}
        if self.input_shapes is not None:
            with contextlib.suppress(ModelError):
                shapes = _concrete(self.base, self.input_shapes)
        return self.graph.shares(self.base, shapes)

    def why(self, tensor: str, axis: int) -> list[str]:
        """Why an axis can or cannot be pruned, a step a line. UsageError with names that exist where it does not."""
        known = ir.every_tensor(self.base)
        if tensor not in known:
            raise UsageError(self._absent(tensor, list(known)))
        shape = known[tensor].shape
        if shape is not None and axis < len(shape) and not isinstance(shape[axis], int):
            size = f"{shape[axis]} " if shape[axis] else ""
            return [f"{tensor}:{axis} has a dynamic size {size}that only a run tells: no unit can leave it"]
        if shape is not None and axis >= len(shape):
            raise UsageError(
                f"{tensor} has no axis {axis}: its shape is {'x'.join(map(str, shape)) or 'that of one value'}"
            )
        return self.graph.explain(tensor, axis)

    def _absent(self, name: str, known: list[str]) -> str:
        near = _survivors(self.source, name, set(known))
        if near:
            why = "is not in the canonical form, which folds constants and fuses nodes"
        else:
            near, why = get_close_matches(name, known, n=3), "is no tensor of the model"
        names = f"; near it are {', '.join(near)}" if near else "; --rules lists the nodes"
        return f"{name} {why}{names}"


def examine(
    model: ModelLike,
    *,
    granularity: str = "head",
    freeze: str | None = None,
    freeze_initializers: bool = False,
    keep_batchnorm: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Examined:
    """The channels of a model, with what it takes to explain them."""
    source, base = _canonical(model, freeze_initializers=freeze_initializers, keep_batchnorm=keep_batchnorm)
    (progress or SilentProgress()).stage("analysing")
    return Examined(source, base, channel_graph(base, granularity=granularity, freeze=freeze), input_shapes or {})


def largest_cause(shares: Shares) -> str:
    """Why nothing can be pruned, in words: the largest cause and what it keeps."""
    if not shares.kept:
        return "it has no weights" if not shares.params else "every group is at its least"
    first: Kept = shares.kept[0]
    if not shares.params:
        return f"{first.reason}; it has no weights"
    what = "MACs" if first.share.macs > first.share.params else "parameters"
    return f"{first.reason} (keeps {max(first.share):.0%} of the {what})"


def _canonical(model: ModelLike, *, freeze_initializers: bool, keep_batchnorm: bool) -> tuple[ir.Model, ir.Model]:
    """The model as it was given, and its canonical form with shapes."""
    source = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else ir.load(model)
    if freeze_initializers:
        ir.freeze_initializers(source)
    base, _ = canonicalize_model(source, keep_batchnorm=keep_batchnorm)
    ir.infer_shapes(base)
    return source, base


def _input_shapes(model: ir.Model, given: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]] | None:
    inputs = {tensor.name: tensor.shape for tensor in ir.feed_inputs(model)}
    if not given:
        known = {name: ir.assumed_shape(shape) for name, shape in inputs.items() if shape is not None}
        return known if len(known) == len(inputs) else None
    from onnxprune.search.prepare import concrete_inputs, open_dimensions
    from onnxprune.stats import Feeds

    open_dimensions(model, given)
    try:
        return concrete_inputs(model, Feeds.synthetic(model, 1, 0, given), 1, given)
    except DataError:
        return None


def _concrete(model: ir.Model, inputs: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """The shapes of all tensors: those recorded, with the names of input dimensions replaced, where they suffice."""
    named: dict[object, int] = {}
    for tensor in ir.feed_inputs(model):
        pairs = zip(tensor.shape or (), inputs.get(tensor.name, ()), strict=False)
        named.update((dim, size) for dim, size in pairs if isinstance(dim, str) and dim)
    found: dict[str, list[int]] = {}
    for name, tensor in ir.tensors(model).items():
        sizes = None if tensor.shape is None else [named.get(dim, dim) for dim in tensor.shape]
        if sizes is None or not all(isinstance(size, int) and size >= 0 for size in sizes):
            return ir.shapes_for(model, inputs)
        found[name] = sizes
    return found


def _survivors(source: ir.Model, name: str, known: set[str]) -> list[str]:
    """Names of the canonical form that what was made from this tensor of the source has."""
    start = ir.tensors(source).get(name)
    pending, seen = deque([start] if start is not None else []), {name}
    found: list[str] = []
    while pending and len(seen) < _NEAR and len(found) < 3:
        for node in ir.consumers(pending.popleft()):
            for tensor in (*node.outputs, *node.inputs):
                if tensor.name and tensor.name not in seen:
                    seen.add(tensor.name)
                    if tensor.name in known:
                        found.append(tensor.name)
                    elif any(tensor is output for output in node.outputs):
                        pending.append(tensor)
    return found[:3]
