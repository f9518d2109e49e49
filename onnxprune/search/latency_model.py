"""Predicts the latency of a plan: a sum over clusters from the latency table, calibrated on whole models.

The table holds what small models of one cluster take (`runtime_bench.latency_table` measures and caches them). What the
sum says of a whole model is for `calibration` to find out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels import AxisKey, ChannelGraph
from onnxprune.search.clusters import Cluster, clusters, extract
from onnxprune.search.solve import LatencyTerm
from passes.structured_pruning.apply import delete

GRID = {2: 4, 3: 3}  # widths that are measured along each axis of a joint table of so many groups
FEW_TRIPLES = 4
"""With more clusters of three groups than this, their joint levels take the integer programme too long: then, and where
a cluster has more groups, it is priced as a sum of one-group effects."""
Build = Callable[[], bytes]
Finish = Callable[[ir.Model], onnx.ModelProto]


@dataclass(frozen=True)
class LocalGroup:
    """A channel group as one cluster sees it: the unit of every element of the axes that it has there (-1: none)."""

    name: str
    width: int
    owner: Mapping[AxisKey, np.ndarray]


@dataclass(frozen=True)
class PricedCluster:
    """The table keys of one cluster over a grid of widths of `axes`; with `minus`, only the difference to that key
    counts.

    `grid`: the measured widths of each axis; `widths`: all of them, in between which latency is taken as linear.
    """

    axes: tuple[str, ...]
    grid: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[int, ...], ...]
    keys: np.ndarray
    branch: int | None
    nodes: frozenset[str]
    minus: str | None = None

    def term(self, seconds: Mapping[str, float]) -> LatencyTerm:
        """Seconds over the levels; NaN where the table has no value."""
        base = 0.0 if self.minus is None else seconds.get(self.minus, math.nan)
        values = np.array([seconds.get(key, math.nan) - base for key in self.keys.ravel()], np.float64)
        values = values.reshape(self.keys.shape)
        for axis, (grid, widths) in enumerate(zip(self.grid, self.widths, strict=True)):
            values = _interpolated(values, axis, grid, widths)
        return LatencyTerm(self.axes, values, self.branch)


def _interpolated(values: np.ndarray, axis: int, grid: tuple[int, ...], widths: tuple[int, ...]) -> np.ndarray:
    rows = np.moveaxis(values, axis, -1)
    found = [np.interp(widths, grid, row) for row in rows.reshape(-1, len(grid))]
    return np.moveaxis(np.reshape(found, (*rows.shape[:-1], len(widths))), -1, axis)


@dataclass(frozen=True)
class TablePlan:
    """What must be in the table: priced clusters, and how to build the model of each key (called only for missing
    keys).
    """

    priced: tuple[PricedCluster, ...]
    builders: Mapping[str, Build]

    def terms(self, seconds: Mapping[str, float]) -> tuple[LatencyTerm, ...]:
        return tuple(cluster.term(seconds) for cluster in self.priced)


def plan_table(
    base: ir.Model,
    graph: ChannelGraph,
    shapes: Mapping[str, tuple[int, ...]],
    levels: Mapping[str, tuple[int, ...]],
    branch_of: Mapping[str, int],
    finish: Finish,
    tag: str,
) -> TablePlan:
    """The table entries of a whole graph in one scheme. Groups without levels stay as they are.

    `shapes`: concrete shape of every tensor of `base`. `levels`: widths of each group, ascending. `branch_of`: node key
    -> index in the drop order. `finish` turns the float model of a cluster into the scheme's form, `tag` names scheme
    and target in the keys.
    """
    priced: list[PricedCluster] = []
    builders: dict[str, Build] = {}
    known: dict[str, list[PricedCluster]] = {}
    first: dict[str, list[str]] = {}
    found = clusters(base, graph)
    triples = sum(len(levels.keys() & cluster.groups) == 3 for cluster in found)
    joint = 3 if triples <= FEW_TRIPLES else 2
    for cluster in found:
        sub = extract(base, cluster, shapes)
        local = tuple(group for group in restricted(graph, sub) if group.name in levels)
        names = [group.name for group in local]
        signature = _signature(sub, local, shapes, levels)
        if signature not in known:
            known[signature] = [
                _priced(sub, local, shapes, levels, axes, minus, finish, tag, builders)
                for axes, minus in _axes(names, joint)
            ]
            first[signature] = names
        branch = _branch(cluster, branch_of)
        here = dict(zip(first[signature], names, strict=True))
        priced += [
            replace(one, axes=tuple(here[name] for name in one.axes), branch=branch, nodes=cluster.keys)
            for one in known[signature]
        ]
    return TablePlan(tuple(priced), builders)


def _branch(cluster: Cluster, branch_of: Mapping[str, int]) -> int | None:
    """The branch of the first node that lies in one: what follows the contraction may belong to the next branch."""
    keys = (ir.node_key(node) for node in cluster.nodes)
    return next((branch_of[key] for key in keys if key in branch_of), None)


def _priced(
    sub: ir.Model,
    local: Sequence[LocalGroup],
    shapes: Mapping[str, tuple[int, ...]],
    levels: Mapping[str, tuple[int, ...]],
    axes: tuple[str, ...],
    minus: bool,
    finish: Finish,
    tag: str,
    builders: dict[str, Build],
) -> PricedCluster:
    """One cluster over the widths of `axes`; adds what has to be measured to `builders`."""
    widths = tuple(levels[name] for name in axes)
    grid = tuple(_spread(each, GRID.get(len(axes), len(each))) for each in widths)
    keys = np.empty([len(each) for each in grid], object)
    for index in np.ndindex(*keys.shape):
        chosen = {name: each[i] for name, each, i in zip(axes, grid, index, strict=True)}
        key, build = _piece(sub, local, shapes, chosen, finish, tag)
        keys[index], builders[key] = key, build
    full = None
    if minus:
        full, builders[full] = _piece(sub, local, shapes, {}, finish, tag)
    return PricedCluster(axes, grid, widths, keys, None, frozenset(), full)


def _spread(widths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Up to `most` of the widths, evenly spread, the first and the last among them."""
    picks = np.unique(np.linspace(0, len(widths) - 1, min(most, len(widths))).round().astype(int))
    return tuple(widths[i] for i in picks)


def _axes(names: Sequence[str], joint: int) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Which groups are priced together, `joint` at most, and whether only the difference to the full cluster counts."""
    if len(names) <= joint:
        yield tuple(names), False
        return
    yield (), False
    for name in names:
        yield (name,), True


def restricted(graph: ChannelGraph, sub: ir.Model) -> tuple[LocalGroup, ...]:
    """The groups of the graph that touch tensors of a sub-model, cut to those tensors, in the order in which they
    appear there.
    """
    order = {name: position for position, name in enumerate(_tensor_names(sub))}
    found: list[tuple[tuple[int, int], LocalGroup]] = []
    for group in graph.groups:
        owner = {axis: units for axis, units in group.owner.items() if axis[0] in order}
        if owner:
            first = min((order[tensor], axis) for tensor, axis in owner)
            found.append((first, LocalGroup(group.name, group.width, owner)))
    return tuple(group for _, group in sorted(found, key=lambda pair: pair[0]))


def first_units(groups: Sequence[LocalGroup], widths: Mapping[str, int]) -> dict[AxisKey, np.ndarray]:
    """What to delete so that each group keeps its first units: latency does not depend on which ones stay."""
    parts: dict[AxisKey, list[np.ndarray]] = {}
    for group in groups:
        for axis, owner in group.owner.items():
            indices = np.flatnonzero(owner >= widths.get(group.name, group.width))
            if len(indices):
                parts.setdefault(axis, []).append(indices)
    return {axis: np.sort(np.concatenate(found)) for axis, found in parts.items()}


def _tensor_names(sub: ir.Model) -> list[str]:
    names = (tensor.name for node in sub.graph.nodes for tensor in (*node.inputs, *node.outputs) if tensor.name)
    return list(dict.fromkeys(names))


def _piece(
    sub: ir.Model,
    local: Sequence[LocalGroup],
    shapes: Mapping[str, tuple[int, ...]],
    widths: Mapping[str, int],
    finish: Finish,
    tag: str,
) -> tuple[str, Build]:
    removed = first_units(local, widths)

    def build() -> bytes:
        model = sub.copy()
        delete(model, removed)
        return bytes(finish(model).SerializeToString())

    counts = {axis: len(indices) for axis, indices in removed.items()}
    return f"{tag}|{describe(sub, shapes, counts)}", build


def describe(sub: ir.Model, shapes: Mapping[str, tuple[int, ...]], removed: Mapping[AxisKey, int]) -> str:
    """A key that two clusters share when they compute the same ops on the same shapes: readable head, hash of the
    whole.
    """
    number = {name: index for index, name in enumerate(_tensor_names(sub))}

    def size(tensor: gs.Tensor) -> tuple[int, ...]:
        shape = tensor.shape if isinstance(tensor, gs.Constant) else shapes[tensor.name]
        return tuple(int(n) - removed.get((tensor.name, axis), 0) for axis, n in enumerate(shape))

    lines = []
    for node in sub.graph.nodes:
        attributes = sorted((name, _attribute_text(value)) for name, value in node.attrs.items())
        tensors = [(number[t.name], str(t.dtype), size(t)) for t in (*node.inputs, *node.outputs) if t.name]
        small = [t.values.tolist() for t in node.inputs if isinstance(t, gs.Constant) and t.dtype == np.int64]
        lines.append(f"{node.domain or ''}.{node.op}{attributes}{tensors}{small}")
    lines.append(str(sorted(number[t.name] for t in sub.graph.outputs)))  # what is read outside cannot be fused away
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    first = sub.graph.nodes[0]
    sizes = ",".join("x".join(map(str, size(t))) for t in first.inputs[:2] if t.name)
    return f"{'+'.join(node.op for node in sub.graph.nodes)} {sizes} {digest}"


def _attribute_text(value: object) -> str:
    if isinstance(value, onnx.TensorProto | onnx.AttributeProto | onnx.GraphProto):
        return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()
    return repr(value)


def _signature(
    sub: ir.Model,
    local: Sequence[LocalGroup],
    shapes: Mapping[str, tuple[int, ...]],
    levels: Mapping[str, tuple[int, ...]],
) -> str:
    number = {name: index for index, name in enumerate(_tensor_names(sub))}
    parts = [describe(sub, shapes, {})]
    for group in local:
        axes = sorted((number[t], axis, owner.tobytes()) for (t, axis), owner in group.owner.items())
        parts.append(hashlib.sha256(repr((levels[group.name], axes)).encode()).hexdigest())
    return "|".join(parts)
