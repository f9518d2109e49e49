"""What a compressed model is refined towards: its outputs, and tensors that everything passes through on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.channels import AxisKey
from onnxprune.stats.arrays import Array
from onnxprune.stats.product import products
from onnxprune.stats.runner import needed


@dataclass(frozen=True)
class Target:
    """``name``: the compressed tensor; ``dense``: the dense one that it stands for; ``gone``: what left its axes."""

    name: str
    dense: str
    gone: tuple[tuple[int, Array], ...] = ()
    output: bool = False

    def wanted(self, values: Array) -> Array:
        """The dense tensor without what has left."""
        for axis, indices in self.gone:
            values = np.delete(values, indices, axis)
        return values


def targets(
    dense: ir.Model,
    compressed: ir.Model,
    removed: Mapping[AxisKey, Array],
    aliases: Mapping[str, str],
    features: int,
) -> list[Target]:
    """The float outputs, and up to ``features`` cuts before them, evenly spaced."""
    known, tensors = ir.tensors(dense), ir.tensors(compressed)
    outputs = [tensor.name for tensor in compressed.graph.outputs if tensor.dtype == np.float32]
    found = [Target(name, name, output=True) for name in outputs if name in known]
    cuts = [name for name in _cuts(compressed, outputs) if name not in outputs]
    cuts = [name for name in cuts if aliases.get(name, name) in known and tensors[name].dtype == np.float32]
    if len(cuts) > features:
        cuts = [cuts[round(place)] for place in np.linspace(0, len(cuts) - 1, features)] if features else []
    for name in cuts:
        original = aliases.get(name, name)
        gone = {axis: indices for (tensor, axis), indices in removed.items() if tensor in (name, original)}
        found.append(Target(name, original, tuple(sorted(gone.items(), key=lambda pair: pair[0]))))
    return found


def outputs_follow(model: ir.Model, goals: Sequence[Target]) -> bool:
    """Whether the outputs are one contraction away from the last target before them, as a classifier's are."""
    before = [goal.name for goal in goals if not goal.output]
    if not before:
        return False
    given = {before[-1], *(tensor.name for tensor in ir.feed_inputs(model))}
    nodes, _ = needed(model, [goal.name for goal in goals if goal.output], given)
    contractions = products(model)
    return sum(ir.node_key(node) in contractions for node in nodes) == 1


def _cuts(model: ir.Model, outputs: Sequence[str]) -> list[str]:
    """Tensors that a contraction reads and that nothing which depends on weights goes around."""
    inputs = {tensor.name for tensor in ir.feed_inputs(model)}
    nodes, _ = needed(model, outputs, inputs)
    contractions = products(model)
    last = {name: place for place, node in enumerate(nodes) for name in (tensor.name for tensor in node.inputs)}
    last.update(dict.fromkeys(outputs, len(nodes)))
    live, cuts, fitted = set[str](), [], set[str]()
    for place, node in enumerate(nodes):
        if ir.node_key(node) in contractions or any(tensor.name in fitted for tensor in node.inputs):
            fitted.update(tensor.name for tensor in node.outputs if tensor.name)
        live = {name for name in live if last.get(name, -1) > place}
        live |= {tensor.name for tensor in node.outputs if tensor.name in fitted and last.get(tensor.name, -1) > place}
        if len(live) == 1:
            tensor = ir.tensors(model)[next(iter(live))]
            if any(ir.node_key(user) in contractions for user in tensor.outputs):
                cuts.append(tensor.name)
    return list(dict.fromkeys(cuts))
