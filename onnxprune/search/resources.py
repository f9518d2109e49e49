"""Bytes and multiply-accumulates as further rows of the integer programme, beside the latency of every provider.

Both are products over the axes of a weight of what is left of them, (A - Σ a_g)(B - Σ b_h), with a_g what group g
removes from an axis. Multiplied out these are terms of one or two groups, so the rows are exact for weights with up to
two axes that groups own, however many groups share an axis. What a scheme adds (scales, zero points, more nodes) and
what is not a weight's (products of two activations) is found by counting whole models, as for latency.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from onnxprune import ir
from onnxprune.search.sensitivity import Sensitivity
from onnxprune.search.solve import Floats, LatencyTerm
from onnxprune.search.workspace import Workspace
from onnxprune.units import bytes_text, count_text
from passes.quantization import Scheme

_QUANTIZED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
Removed = Mapping[str, Floats]
"""Elements that leave one axis, over the levels of each group that owns a part of it."""


@dataclass(frozen=True)
class Count:
    """What a whole model takes of a resource, from the sum of its terms: a line, since terms are exact but for what a
    scheme adds.
    """

    offset: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, terms: Sequence[float], taken: Sequence[float]) -> Count:
        """The line through the smallest and the largest of the models that were counted."""
        (low, at_low), (high, at_high) = (pick(zip(terms, taken, strict=True)) for pick in (min, max))
        scale = (at_high - at_low) / (high - low) if high > low and at_high > at_low else 1.0
        return cls(at_high - scale * high, scale)

    def through(self, terms: float, taken: float) -> Count:
        """The same slope, right for this model."""
        return Count(taken - self.scale * terms, self.scale)

    def budget(self, amount: float) -> float:
        """The sum of terms that fits into an amount."""
        return (amount - self.offset) / self.scale


@dataclass(frozen=True)
class Resource:
    """What a model takes beside time. kind: "size" (bytes of its files) or "macs". limit: what it may take."""

    kind: str
    limit: float

    def said(self, amount: float) -> str:
        """An amount of it in words."""
        return bytes_text(amount) if self.kind == "size" else f"{count_text(amount)} MACs"

    def taken(self, work: Workspace, model: ir.Model, path: Path) -> float:
        """What a model takes that is stored at `path`."""
        return float(stored_bytes(path) if self.kind == "size" else counted_macs(work, model))

    def terms(self, work: Workspace, sensitivity: Sensitivity, scheme: Scheme | None) -> tuple[LatencyTerm, ...]:
        """Terms of the base model in a scheme, in bytes or in MACs."""
        ledger = _Ledger(sensitivity.branch_of_node)
        found = _weights(work, scheme) if self.kind == "size" else _products(work)
        for tensor, amount, nodes in found:
            ledger.add(amount, _axes(work, sensitivity, tensor), nodes)
        return ledger.terms()


def resources(work: Workspace) -> tuple[Resource, ...]:
    """What the user set limits on."""
    found = []
    if work.options.size is not None:
        found.append(Resource("size", math.floor(work.options.size.of(stored_bytes(work.original)))))
    if work.options.macs is not None:
        source = ir.load(work.original)
        counted = work.base if any(map(ir.has_subgraph, ir.all_nodes(source))) else source
        found.append(Resource("macs", math.floor(work.options.macs.of(counted_macs(work, counted)))))
    return tuple(found)


def stored_bytes(path: Path) -> int:
    """Bytes of a model's file and of its external data."""
    return sum(part.stat().st_size for part in (path, *path.parent.glob(f"{path.name}.*.data")))


def counted_macs(work: Workspace, model: ir.Model) -> int:
    """MACs of a model at the shapes of the search."""
    inputs = {tensor.name: work.shapes[tensor.name] for tensor in ir.feed_inputs(work.base)}
    return ir.macs(model, ir.shapes_for(model, inputs))


@dataclass
class _Ledger:
    """Terms by the groups that they touch and the branch that they lie in."""

    branch_of_node: Mapping[str, int]
    sums: dict[tuple[tuple[str, ...], int | None], Floats] = field(default_factory=dict)

    def add(self, amount: float, axes: Sequence[tuple[int, Removed]], nodes: Sequence[str]) -> None:
        """Takes in a dense `amount` that falls with what is left of `axes`, and is gone where all `nodes` are."""
        homes = {self.branch_of_node.get(node) for node in nodes}
        branch = homes.pop() if len(homes) == 1 else None
        for groups, values in _expanded([(size, removed) for size, removed in axes if removed]):
            key = groups, branch
            self.sums[key] = self.sums.get(key, np.zeros(values.shape)) + amount * values

    def terms(self) -> tuple[LatencyTerm, ...]:
        return tuple(LatencyTerm(groups, values, branch) for (groups, branch), values in self.sums.items())


def _expanded(axes: Sequence[tuple[int, Removed]]) -> Iterator[tuple[tuple[str, ...], Floats]]:
    """Σ over groups and pairs of groups of ∏ (1 - Σ removed / size), multiplied out to second order in the axes."""
    yield (), np.array(1.0)
    shares = [{name: values / size for name, values in removed.items()} for size, removed in axes]
    for axis in shares:
        for name, values in axis.items():
            yield (name,), -values
    for one, other in combinations(shares, 2):
        for a, first in one.items():
            for b, second in other.items():
                if a == b:
                    yield (a,), first * second
                elif a < b:
                    yield (a, b), np.outer(first, second)
                else:
                    yield (b, a), np.outer(second, first)


def _axes(work: Workspace, sensitivity: Sensitivity, tensor: ir.Constant | None) -> list[tuple[int, Removed]]:
    """Size and removed elements of every axis of a weight."""
    if tensor is None:
        return []
    found: list[tuple[int, Removed]] = []
    for axis, size in enumerate(tensor.shape):
        removed = {
            group.name: _removed(owner, sensitivity, group.name)
            for group in work.graph.groups
            if group.name in sensitivity.levels and (owner := group.owner.get((tensor.name, axis))) is not None
        }
        found.append((int(size), removed))
    return found


def _removed(owner: np.ndarray, sensitivity: Sensitivity, group: str) -> Floats:
    """Elements of an axis that leave, at every level of a group. owner: the unit of each element, -1 for none."""
    order = sensitivity.curves[group].order
    owned = np.bincount(owner[owner >= 0], minlength=len(order))[order]
    gone = np.concatenate([[0], np.cumsum(owned)])
    return np.array([float(gone[len(order) - width]) for width in sensitivity.levels[group]])


def _weights(work: Workspace, scheme: Scheme | None) -> Iterator[tuple[ir.Constant, float, list[str]]]:
    """Every stored tensor with its bytes in a scheme and the nodes that read it."""
    readers: dict[str, list[str]] = defaultdict(list)
    small: set[str] = set()
    halved = scheme is not None and scheme.kind == "float16"
    for node in work.base.graph.nodes:
        for tensor in node.inputs:
            readers[tensor.name].append(ir.node_key(node))
        if scheme is not None and not halved and node.op in _QUANTIZED and ir.node_key(node) not in scheme.exclude:
            small.update(tensor.name for tensor in node.inputs[1:2])
    for name, tensor in ir.initializers(work.base).items():
        width = 2 if halved and tensor.dtype == np.float32 else 1 if name in small else np.dtype(tensor.dtype).itemsize
        yield tensor, float(math.prod(tensor.shape) * width), readers[name]


def _products(work: Workspace) -> Iterator[tuple[ir.Constant | None, float, list[str]]]:
    """The weight of every product, with its MACs and its node."""
    for node, times in ir.repeated_nodes(work.base, work.shapes):
        for macs, weight in ir.macs_by_weight(node, work.shapes):
            yield weight, float(times * macs), [ir.node_key(node)]
