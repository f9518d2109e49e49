"""Removes what no output depends on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.ir.objects import Variable
from onnxprune.pipeline import PassContext, PassResult, Promise

OPTIONAL_OUTPUTS = frozenset(["Dropout", "GRU", "LSTM", "LayerNormalization", "MaxPool", "RNN", "Unique"])
"""Not BatchNormalization: before opset 14 its optional outputs are what puts it into training mode."""


@dataclass(frozen=True)
class DeadCode:
    """Remove nodes, optional outputs and initializers that nothing reads.

    Rewrites:
      1. A node none of whose outputs is read, captured by a subgraph or a graph output is removed. Repeated until none
         is left, in one backward sweep.
      2. Trailing optional outputs that nothing reads are dropped (the mask of ``Dropout``, the indices of ``MaxPool``,
         the states of ``LSTM``), which lets runtimes use their faster forms.
      3. Initializers that nothing reads are dropped.
      4. Functions that no node calls are dropped.
    Requires: nodes in topological order.
    Guarantees: bit-equal outputs; the same inputs, used or not.
    Leaves alone: graph inputs and overridable initializers; outer tensors that subgraphs capture. Every operator of
    the standard is free of side effects; operators of other domains are taken to be free of them too, as runtimes do.
    Options: none.
    References: ONNX IR specification, "Graphs" and "Optional Inputs and Outputs".
    """

    name: ClassVar[str] = "dead-code"
    promise: ClassVar[Promise] = "exact"
    in_subgraphs: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Sweep backwards once."""
        counts: Counter[str] = Counter()
        outputs = {tensor.name for tensor in model.graph.outputs}
        kept: list[ir.Node] = []
        live = outputs | _captured_by_all(model)
        for node in reversed(model.graph.nodes):
            if any(tensor.name and (tensor.outputs or tensor.name in live) for tensor in node.outputs):
                kept.append(node)
                counts["outputs"] += _drop_outputs(node, live)
            else:
                node.inputs.clear()
                node.outputs.clear()
                counts["nodes"] += 1
        model.graph.nodes = kept[::-1]
        counts["initializers"] = _drop_loose(model)
        counts["functions"] = _drop_functions(model)
        return PassResult.of(counts)


def _captured_by_all(model: ir.Model) -> set[str]:
    """Captured names. A dead node with a subgraph keeps what it captures alive until the next run."""
    return ir.captured(model)


def _drop_outputs(node: ir.Node, live: set[str]) -> int:
    if node.op not in OPTIONAL_OUTPUTS or ir.domain(node):
        return 0
    dropped = 0
    while len(node.outputs) > 1 and not node.outputs[-1].outputs and node.outputs[-1].name not in live:
        dropped += bool(node.outputs[-1].name)
        del node.outputs[-1]
    for index, tensor in enumerate(node.outputs[1:], start=1):
        if tensor.name and not tensor.outputs and tensor.name not in live:
            node.outputs[index] = Variable("")
            dropped += 1
    return dropped


def _drop_loose(model: ir.Model) -> int:
    captured = ir.captured(model)
    keep = {tensor.name for tensor in (*model.graph.inputs, *model.graph.outputs)} | captured
    dead = [name for name, tensor in model.loose.items() if name not in keep and not tensor.outputs]
    for name in dead:
        del model.loose[name]
    return len(dead)


def _drop_functions(model: ir.Model) -> int:
    functions = model.header.functions
    if not functions:
        return 0
    from passes.function_calls import reachable

    live = reachable(model)
    kept = [f for f in functions if (f.domain, f.name, f.overload) in live]
    dropped = len(functions) - len(kept)
    if dropped:
        del functions[:]
        functions.extend(kept)
    return dropped
