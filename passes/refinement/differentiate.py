"""Reverse-mode differentiation of a model: a second ONNX model that computes the gradients of its weights.

The forward model takes the trained weights as inputs and yields what the backward model reads. A weight is trained only
where every way from it to a target is understood: behind a node without a rule nothing is known, so what the node
reads is driven by targets before the node alone, or left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.runner import RUNTIME_ERRORS, Runner, extract, needed, one_line, session
from passes.refinement.rules import RULES
from passes.refinement.tape import NoRuleError, Tape


@dataclass(frozen=True)
class Gradient:
    """``names``: the weights that are trained; ``targets``: tensors that a loss is given for."""

    names: tuple[str, ...]
    targets: tuple[str, ...]
    _forward: Any
    _backward: Any
    _kept: tuple[str, ...]
    _outputs: Mapping[str, str]

    def forward(self, call: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """The targets, and what :meth:`backward` needs, for one call of the model."""
        given = dict(call) | dict(weights)
        names = list(dict.fromkeys([*self.targets, *self._kept]))
        values = _run(self._forward, names, given)
        return dict(call) | dict(zip(names, values, strict=True))

    def backward(
        self, found: Mapping[str, Array], weights: Mapping[str, Array], losses: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Gradients of the weights, given those of the loss with respect to each target."""
        given = dict(found) | dict(weights) | {_seed(name): loss for name, loss in losses.items()}
        return dict(zip(self._outputs, _run(self._backward, list(self._outputs.values()), given), strict=True))


def _run(model: Any, names: Sequence[str], given: Mapping[str, Array]) -> list[Array]:
    """Runs a session on what it reads of ``given``. Raises ModelError where its kernels do not take it."""
    try:
        found: list[Array] = model.run(names, {one.name: given[one.name] for one in model.get_inputs()})
    except RUNTIME_ERRORS as error:
        raise ModelError(f"the gradient does not run: {one_line(error)}") from None
    return found


def differentiate(
    model: ir.Model, targets: Sequence[str], call: Mapping[str, Array], *, threads: int = 0
) -> Gradient | None:
    """The gradients of all weights that may be trained towards ``targets``, for calls of the shapes of ``call``; None
    where there are none.
    """
    inputs = [tensor.name for tensor in ir.feed_inputs(model)]
    nodes, _ = needed(model, targets, set(inputs))
    shapes = _shapes(model, nodes, call, threads)
    candidates = _candidates(model, nodes)
    traced: _Traced | None = _trace(nodes, targets, candidates, shapes, model.opset())
    while traced is not None and traced.weights.keys() != candidates:  # once more without those that lead nowhere
        candidates = set(traced.weights)
        traced = _trace(nodes, targets, candidates, shapes, model.opset()) if candidates else None
    if traced is None:
        return None
    names = tuple(traced.weights)
    seeds = {_seed(name): shapes[name] for name in traced.seeded}
    backward = traced.tape.model(seeds, list(traced.weights.values()))
    kept = tuple(name for name in traced.tape.needed if name not in names and name not in inputs)
    reached = [name for name in targets if name in traced.seeded]
    forward = _with_inputs(extract(model, list(dict.fromkeys([*reached, *kept])), inputs), names)
    return Gradient(names, tuple(reached), session(forward, threads), session(backward, threads), kept, traced.weights)


@dataclass(frozen=True)
class Gradients:
    """The gradients of one model for calls of many shapes, each made when a call of its shapes comes first."""

    names: tuple[str, ...]
    targets: tuple[str, ...]
    _model: ir.Model
    _threads: int
    _made: dict[tuple[tuple[int, ...], ...], Gradient]

    @staticmethod
    def of(model: ir.Model, targets: Sequence[str], call: Mapping[str, Array], *, threads: int = 0) -> Gradients | None:
        """What :func:`differentiate` finds for this call, which others have to have in common; None where nothing."""
        first = differentiate(model, targets, call, threads=threads)
        if first is None:
            return None
        return Gradients(first.names, first.targets, model, threads, {_sizes(call): first})

    def at(self, call: Mapping[str, Array]) -> Gradient:
        """For calls of the shapes of this one. Raises ModelError where other weights have gradients there."""
        if (found := self._made.get(_sizes(call))) is None:
            found = differentiate(self._model, self.targets, call, threads=self._threads)
            if found is None or (found.names, found.targets) != (self.names, self.targets):
                raise ModelError("what can be trained depends on the sizes of the inputs")
            self._made[_sizes(call)] = found
        return found


def _sizes(call: Mapping[str, Array]) -> tuple[tuple[int, ...], ...]:
    return tuple(call[name].shape for name in sorted(call))


def _seed(name: str) -> str:
    return f"loss:{name}"


def _shapes(
    model: ir.Model, nodes: Iterable[gs.Node], call: Mapping[str, Array], threads: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the float32 tensors, as they are when the model runs."""
    names = list(dict.fromkeys(tensor.name for node in nodes for tensor in node.outputs if tensor.name))
    found = dict(call) | Runner(model, names, list(call), threads=threads)(call)
    constants = {name: tensor for name, tensor in ir.initializers(model).items() if tensor.dtype == np.float32}
    shapes = {name: tuple(tensor.shape) for name, tensor in constants.items()}
    arrays = {name: array for name, array in found.items() if getattr(array, "dtype", None) == np.float32}
    return shapes | {name: tuple(array.shape) for name, array in arrays.items()}


def _candidates(model: ir.Model, nodes: Sequence[gs.Node]) -> set[str]:
    """Float initializers of more than one element that no subgraph and no output reads."""
    outside = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    inside = {ir.node_key(node) for node in nodes}
    found = set()
    for name, tensor in ir.initializers(model).items():
        free = not getattr(tensor, "overridable", False) and name not in outside
        read = bool(tensor.outputs) and all(ir.node_key(node) in inside for node in tensor.outputs)
        if free and read and tensor.dtype == np.float32 and np.prod(tensor.shape) > 1:
            found.add(name)
    return found


@dataclass(frozen=True)
class _Traced:
    tape: Tape
    weights: dict[str, str]
    seeded: set[str]


def _trace(
    nodes: Sequence[gs.Node],
    targets: Sequence[str],
    candidates: set[str],
    shapes: Mapping[str, tuple[int, ...]],
    opset: int,
) -> _Traced:
    tape = Tape(shapes, _dependent(nodes, candidates), opset)
    pieces: dict[str, list[str]] = {name: [_seed(name)] for name in targets if name in shapes}
    blocked: set[str] = set()
    for node in reversed(nodes):
        wanted = [tensor for tensor in node.inputs if tensor.name and tape.wants(tensor)]
        if not wanted:
            continue
        for tensor in node.outputs:
            _settle(tape, str(tensor.name), pieces, blocked)
        found = _through(tape, node, blocked)
        for place, tensor in enumerate(node.inputs):
            if tensor.name and tape.wants(tensor):
                if found is not None and place in found:
                    pieces.setdefault(str(tensor.name), []).append(found[place])
                else:
                    blocked.add(str(tensor.name))
    weights = [name for name in sorted(candidates) if name in pieces and name not in blocked]
    summed = {name: _total(tape, pieces[name]) for name in weights}
    return _Traced(tape, summed, {name for name in targets if name in tape.gradients})


def _settle(tape: Tape, name: str, pieces: Mapping[str, list[str]], blocked: set[str]) -> None:
    """The gradient of an output whose readers have all been passed: of a target behind which nothing is known, its own
    loss alone.
    """
    parts = pieces.get(name, [])
    if name in blocked:
        parts = [part for part in parts if part == _seed(name)]
        blocked.difference_update({name} if parts else ())
    if parts:
        tape.gradients[name] = _total(tape, parts)


def _through(tape: Tape, node: gs.Node, blocked: set[str]) -> Mapping[int, str] | None:
    """Gradients of the node's inputs; None where they are not known."""
    names = [str(tensor.name) for tensor in node.outputs if tensor.name]
    known = [tape.gradients[name] for name in names if name in tape.gradients]
    rule = None if ir.domain(node) else RULES.get(node.op)
    if rule is None or not known or any(name in blocked for name in names):
        return None
    mark = len(tape.nodes)
    try:
        return rule(tape, node, known[0])
    except NoRuleError:
        del tape.nodes[mark:]
        return None


def _dependent(nodes: Sequence[gs.Node], candidates: set[str]) -> set[str]:
    """The candidates and all tensors that depend on one."""
    found = set(candidates)
    for node in nodes:
        if any(tensor.name in found for tensor in node.inputs):
            found.update(str(tensor.name) for tensor in node.outputs if tensor.name)
    return found


def _total(tape: Tape, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else tape.op("Sum", *parts)


def _with_inputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Initializers made inputs."""
    moved = [tensor for tensor in proto.graph.initializer if tensor.name in set(names)]
    for tensor in moved:
        proto.graph.initializer.remove(tensor)
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto
