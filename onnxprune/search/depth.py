"""The order in which residual branches are dropped, and what each drop costs: a greedy order measured on the network's
outputs.

All branches get a gate in one session (branch output · g + its mean · (1 - g)), so that a probe is one run and no new
session. The mean stands for what least squares will do with the layer before the branch. Costs of several drops do not
add up, hence the order is nested: the k-th entry is measured with the ones before it dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Feeds, Runner, drift, padding, run
from passes.block_removal import Branch

LOOK_AHEAD = 5  # candidates measured again after each drop
HOPELESS = 1.0  # squared output error at which nothing is left of the function


@dataclass(frozen=True)
class DropOrder:
    """Branches in the order they go, and the squared relative output error after each (cumulative, ascending)."""

    branches: tuple[Branch, ...] = ()
    error: tuple[float, ...] = ()

    @property
    def steps(self) -> tuple[float, ...]:
        """What each drop adds."""
        return tuple(np.diff(self.error, prepend=0.0).tolist())


def drop_order(
    model: ir.Model,
    branches: Sequence[Branch],
    feeds: Feeds,
    saved: Mapping[str, float],
    tell: Callable[[str], None] = lambda text: None,
) -> DropOrder:
    """Drops the branch with the least added error per second saved (`saved`: seconds by branch name), again and again.

    `feeds` are the samples of the probes. Ends where nothing is left to drop or the outputs are lost.
    """
    if not branches:
        return DropOrder()
    measure = _Gates(model, branches, feeds)
    alone = {b.name: measure(frozenset({b.name})) for b in branches}
    left = sorted(branches, key=lambda b: alone[b.name] / saved[b.name])
    order: list[Branch] = []
    errors: list[float] = []
    while left:
        gone, now = frozenset(b.name for b in order), errors[-1] if errors else 0.0
        ahead = [b for b in left if b.add not in {d.add for d in order}][:LOOK_AHEAD]
        if not ahead:
            break
        found = {b.name: measure(gone | {b.name}) if order else alone[b.name] for b in ahead}
        best = min(ahead, key=lambda b: (found[b.name] - now) / saved[b.name])
        if found[best.name] > HOPELESS:
            break
        tell(f"{len(order) + 1} of {len(branches)}")
        order.append(best)
        errors.append(max(found[best.name], now * 1.001))
        left.remove(best)
    return DropOrder(tuple(order), tuple(errors))


class _Gates:
    """The gated model: called with the names of dropped branches it returns the squared relative output error."""

    def __init__(self, model: ir.Model, branches: Sequence[Branch], feeds: Feeds) -> None:
        outputs = [tensor.name for tensor in model.graph.outputs]
        nodes = {ir.node_key(node): node for node in model.graph.nodes}
        means = _means(model, [nodes[b.add].inputs[b.operand].name for b in branches], feeds)
        self._gates = {b.name: means[nodes[b.add].inputs[b.operand].name].dtype for b in branches}
        gated = _gated(model, branches, means)
        inputs = [tensor.name for tensor in ir.feed_inputs(gated)]
        self._runner = Runner(gated, outputs, inputs)
        self._calls = list(feeds.calls())
        self._masks = list(padding(model, feeds))
        self._dense = [self._outputs(call, frozenset()) for call in self._calls]

    def _outputs(self, call: Mapping[str, np.ndarray], dropped: frozenset[str]) -> dict[str, np.ndarray]:
        open_ = (np.asarray(name not in dropped, dtype) for name, dtype in self._gates.items())
        return self._runner({**call, **{_gate(index): value for index, value in enumerate(open_)}})

    def __call__(self, dropped: frozenset[str]) -> float:
        new = (self._outputs(call, dropped) for call in self._calls)
        return squared(drift(self._dense, new, self._masks))


def squared(drifts: Mapping[str, float]) -> float:
    """Mean square of the relative errors of all outputs: the error that the search adds up."""
    return float(np.mean([min(value, 1e3) ** 2 for value in drifts.values()])) if drifts else 0.0


def _gate(index: int) -> str:
    return f"onnxprune_gate_{index}"


def _means(model: ir.Model, names: Sequence[str], feeds: Feeds) -> dict[str, np.ndarray]:
    """Mean of every tensor over samples and all axes but its channel axis, shaped to broadcast."""
    total: dict[str, np.ndarray] = {}
    dtypes: dict[str, np.dtype] = {}
    calls = 0
    for values in run(model, feeds, list(dict.fromkeys(names))):
        calls += 1
        for name, value in values.items():
            channel = 1 if value.ndim == 4 else value.ndim - 1
            axes = tuple(a for a in range(value.ndim) if a != channel)
            total[name] = total.get(name, 0) + value.mean(axes, keepdims=True, dtype=np.float64)
            dtypes[name] = value.dtype
    return {name: (value / calls).astype(dtypes[name]) for name, value in total.items()}


def _gated(model: ir.Model, branches: Sequence[Branch], means: Mapping[str, np.ndarray]) -> ir.Model:
    gated = model.copy()
    nodes = {ir.node_key(node): node for node in gated.graph.nodes}
    for index, branch in enumerate(branches):
        add = nodes[branch.add]
        old = add.inputs[branch.operand]
        gate = ir.Variable(_gate(index), means[old.name].dtype, [])
        gated.graph.inputs.append(gate)
        mean = ir.Constant(f"{gate.name}_mean", means[old.name])
        centred, scaled, shifted = (ir.Variable(f"{gate.name}_{i}", old.dtype, None) for i in range(3))
        extra = [
            ir.Node("Sub", f"{gate.name}_sub", {}, [old, mean], [centred]),
            ir.Node("Mul", f"{gate.name}_mul", {}, [centred, gate], [scaled]),
            ir.Node("Add", f"{gate.name}_add", {}, [scaled, mean], [shifted]),
        ]
        add.inputs[branch.operand] = shifted
        _insert_before(gated.graph, add, extra)
    return gated


def _insert_before(graph: gs.Graph, node: gs.Node, extra: Sequence[gs.Node]) -> None:
    at = next(i for i, other in enumerate(graph.nodes) if other is node)
    graph.nodes[at:at] = list(extra)
