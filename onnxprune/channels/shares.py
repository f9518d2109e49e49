"""What share of the weights and of the multiply-accumulates can be pruned, and what keeps the rest.

Sizes alone decide: nothing is sliced. With every group at its `min_keep`, each weight and each product keeps a part;
the prunable share is what is left of one after these parts. An element of a weight is kept where its index on each of
its channel axes is kept. Where some of these are frozen, it counts to what freezes them, in equal parts; else to the
least that groups keep. So the shares of all causes and the prunable share add up to one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.causes import LEAVES, PLAIN, STAYS, Causes, causes
from onnxprune.channels.collect import Tables
from onnxprune.channels.facts import is_weight
from onnxprune.channels.groups import Group
from onnxprune.channels.links import AxisKey
from onnxprune.channels.solve import Solution

Shapes = Mapping[str, Sequence[int]]
Parts = Mapping[int, int]
"""How many elements of an axis each cause accounts for."""
NO_CHANNEL = "no channel passes through it"


class Share(NamedTuple):
    """Parts of a model's multiply-accumulates and of its parameters, 0 to 1."""

    macs: float
    params: float


@dataclass(frozen=True)
class Kept:
    """What one cause keeps from being pruned. axes: how many weight axes have elements that it holds; nodes: of how
    many nodes it is why nothing is known about them; example: one of the axes as TENSOR:AXIS, or a tensor.
    """

    reason: str
    share: Share
    axes: int
    nodes: int
    example: str


@dataclass(frozen=True)
class Shares:
    """macs, params: of the model. prunable: 1 - those at every group's min_keep over those of the model. groups: the
    same for each group alone, by name. least: what the groups have to keep. kept: all else by cause, the largest first.
    """

    macs: int
    params: int
    prunable: Share
    groups: Mapping[str, Share]
    least: Share
    kept: tuple[Kept, ...]


def shares(tables: Tables, solution: Solution, groups: Sequence[Group], model: ir.Model, shapes: Shapes) -> Shares:
    """The shares of an analysed model. shapes: concrete ones of its tensors (`ir.shapes_for`)."""
    ledger = _Ledger(tables, solution, causes(tables, solution, groups))
    weights = ir.weight_shapes(model)
    repeated = ir.repeated_nodes(model, shapes)
    nodes = [_Counted(node, count, times) for node, times in repeated if (count := ir.node_macs(node, shapes))]
    macs, params = sum(each.macs * each.times for each in nodes), sum(map(math.prod, weights.values()))
    tensors = ir.every_tensor(model)
    for name, shape in weights.items():
        ledger.weigh_weight(tensors[name], math.prod(shape) / max(params, 1))
    smaller = _Smaller(shapes, ledger.left)
    for node, count, times in nodes:
        ledger.weigh_node(node, count * times / max(macs, 1), ir.node_macs(node, smaller) / count)
    by_group = _Alone(weights, nodes, shapes)
    least, kept = ledger.result()
    rest = [1 - least[which] - sum(each.share[which] for each in kept) for which in (0, 1)]
    return Shares(
        macs=macs,
        params=params,
        prunable=Share(max(0.0, rest[0]) if macs else 0.0, max(0.0, rest[1]) if params else 0.0),
        groups={group.name: by_group.share(group, macs, params) for group in groups},
        least=least,
        kept=kept,
    )


class _Counted(NamedTuple):
    """A node, its multiply-accumulates (more than 0), and how often it counts."""

    node: gs.Node
    macs: int
    times: int


@dataclass
class _Ledger:
    """What stays, by cause: [share of MACs, share of parameters]."""

    tables: Tables
    solution: Solution
    causes: Causes
    found: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    axes: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def __post_init__(self) -> None:
        self._parts: dict[int, Parts] = {}
        self._known: dict[tuple[tuple[tuple[int, int], ...], ...], Mapping[str, float]] = {}
        self._made = {each.axis for each in self.tables.produced}
        self._summed: dict[str, list[int]] = defaultdict(list)
        for each in self.tables.summed:
            self._summed[each.node].append(each.axis)

    def parts(self, axis: int) -> Parts:
        """Of an axis, by number."""
        strand = int(self.solution.strand[axis])
        if strand not in self._parts:
            self._parts[strand] = Counter(self.causes.code[self.solution.labels(strand)].tolist())
        return self._parts[strand]

    def left(self, key: AxisKey, size: int) -> int:
        """The size of an axis with every group at its least."""
        number = self.tables.number.get(key)
        return size if number is None else size - self.parts(number).get(LEAVES, 0)

    def weigh_weight(self, tensor: gs.Tensor, share: float) -> None:
        """Takes in a weight, which is this share of all."""
        numbers = [(axis, self.tables.number.get((tensor.name, axis))) for axis in range(len(tensor.shape))]
        known = [(axis, number) for axis, number in numbers if number is not None]
        parts = {axis: found for axis, number in known if set(found := self.parts(number)) != {PLAIN}}
        for axis, found in parts.items():
            for code in found.keys() - {PLAIN, LEAVES, STAYS}:
                self.axes[self.causes.words[code]][f"{tensor.name}:{axis}"] = None
        if not parts:
            reason = self._outside(tensor, [number for _, number in known])
            self.axes[reason].setdefault(f"{tensor.name}:{known[0][0]}" if known else tensor.name)
            self.found[reason][1] += share
            return
        for reason, fraction in self._kept(parts.values()).items():
            self.found[reason][1] += share * fraction

    def weigh_node(self, node: gs.Node, share: float, fraction: float) -> None:
        """Takes in a node with this share of all MACs, of which a fraction stays. A product of activations that can
        shrink counts to the groups.
        """
        made = (self.tables.number.get((t.name, axis)) for t in node.inputs for axis in range(len(t.shape or ())))
        numbers = {n for n in made if n in self._made} | set(self._summed[ir.node_key(node)])
        found: Mapping[str, float] = {self.tables.barriers.get(ir.node_key(node), NO_CHANNEL): 1.0}
        if fraction < 1 and not any(map(is_weight, node.inputs[:2])):
            found = {self.causes.words[STAYS]: 1.0}
        else:
            axes = sorted(numbers) or self._weight_axes(node)
            found = (self._kept([self.parts(axis) for axis in axes]) if axes else {}) or found
        whole = sum(found.values())
        for reason, part in found.items():
            self.found[reason][0] += share * fraction * part / whole

    def _weight_axes(self, node: gs.Node) -> list[int]:
        """The channel axes of the first weight, where no axis is made or summed (a depthwise convolution)."""
        weight = next((tensor for tensor in node.inputs[:2] if is_weight(tensor)), None)
        numbers = [] if weight is None else [self.tables.number.get((weight.name, a)) for a in range(len(weight.shape))]
        return [number for number in numbers if number is not None and set(self.parts(number)) != {PLAIN}]

    def _outside(self, tensor: gs.Tensor, axes: list[int]) -> str:
        """Why a weight without a channel axis stays: what is unknown about a node that reads it, or what pins it."""
        for node in ir.consumers(tensor):
            if ir.node_key(node) in self.tables.barriers:
                return self.tables.barriers[ir.node_key(node)]
        held = (int(self.causes.held[self.solution.labels(int(self.solution.strand[axis]))].max()) for axis in axes)
        return next((self.causes.words[code] for code in held if code), NO_CHANNEL)

    def _kept(self, axes: Iterable[Parts]) -> Mapping[str, float]:
        """The part of a weight that stays, by cause. Most weights of a network have axes like those of others."""
        key = tuple(tuple(parts.items()) for parts in axes)
        if key not in self._known:
            self._known[key] = self._combined(key)
        return self._known[key]

    def _combined(self, axes: tuple[tuple[tuple[int, int], ...], ...]) -> dict[str, float]:
        """By cause, one over all combinations of what the elements of the axes are."""
        combined: dict[tuple[int, ...], float] = {(): 1.0}
        for parts in axes:
            whole = sum(count for _, count in parts)
            grown: dict[tuple[int, ...], float] = defaultdict(float)
            for before, fraction in combined.items():
                for code, count in parts:
                    if code != LEAVES:
                        grown[(*before, code)] += fraction * count / whole
            combined = grown
        found: dict[str, float] = defaultdict(float)
        for codes, fraction in combined.items():
            frozen = [code for code in codes if code not in (PLAIN, STAYS)]
            for code in frozen or [STAYS if STAYS in codes else PLAIN]:
                found[self.causes.words[code] or NO_CHANNEL] += fraction / max(len(frozen), 1)
        return found

    def result(self) -> tuple[Share, tuple[Kept, ...]]:
        """The least that groups keep, and all other causes; those of nodes too that have neither weights nor MACs."""
        least = Share(*self.found.pop(self.causes.words[STAYS], (0.0, 0.0)))
        nodes = Counter(self.tables.barriers.values())
        for key, reason in self.tables.barriers.items():
            self.axes[reason] = self.axes[reason] or {f"{key}:0" if (key, 0) in self.tables.number else key: None}
        kept = [
            Kept(
                reason,
                Share(*self.found[reason]),
                len(self.axes[reason]),
                nodes[reason],
                next(iter(self.axes[reason]), ""),
            )
            for reason in {**self.found, **nodes}
            if max(self.found[reason]) > 0 or nodes[reason]
        ]
        return least, tuple(sorted(kept, key=lambda each: (-max(each.share), each.reason)))


class _Smaller(Mapping[str, Sequence[int]]):
    """Shapes after a removal: `left` gives the size that an axis has then."""

    def __init__(self, shapes: Shapes, left: Callable[[AxisKey, int], int]) -> None:
        self._shapes, self._left = shapes, left
        self._smaller: dict[str, Sequence[int]] = {}

    def __getitem__(self, name: str) -> Sequence[int]:
        if name not in self._smaller:
            self._smaller[name] = [self._left((name, axis), size) for axis, size in enumerate(self._shapes[name])]
        return self._smaller[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


class _Alone:
    """What each group saves when only it goes down to its least: from the weights and nodes that it touches."""

    def __init__(self, weights: Shapes, nodes: Iterable[_Counted], shapes: Shapes) -> None:
        self._weights, self._shapes = weights, shapes
        self._readers: dict[str, list[_Counted]] = defaultdict(list)
        for each in nodes:
            for name in {tensor.name for tensor in (*each.node.inputs, *each.node.outputs)}:
                self._readers[name].append(each)

    def share(self, group: Group, macs: int, params: int) -> Share:
        gone = group.owner.leaving(group.min_keep)
        names = dict.fromkeys(name for name, _ in gone)
        smaller = _Smaller(self._shapes, lambda key, size: size - gone.get(key, 0))
        touched = {id(each.node): each for name in names for each in self._readers.get(name, ())}
        saved = sum(times * (count - ir.node_macs(node, smaller)) for node, count, times in touched.values())
        less = _Smaller(self._weights, lambda key, size: size - gone.get(key, 0))
        lost = sum(math.prod(self._weights[name]) - math.prod(less[name]) for name in names if name in self._weights)
        return Share(saved / max(macs, 1), lost / max(params, 1))
