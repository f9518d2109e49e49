"""Replaces calls of the model's local functions by their bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx.inliner

from onnxprune import ir
from onnxprune.errors import LimitError, ModelError
from onnxprune.ir.functions import expanded_sizes
from onnxprune.ir.light import typed
from onnxprune.pipeline import PassContext, PassResult, Promise
from passes.function_calls import called, key


@dataclass(frozen=True)
class InlineFunctions:
    """Replace every call of a local function by the function's nodes.

    Rewrites:
      1. A node whose (domain, op_type, overload) names a function of the model becomes the body of that function, with
         names made unique; nested calls too. The functions are dropped.
    Requires: functions that do not call themselves.
    Guarantees: bit-equal outputs; at most ``max_nodes`` nodes.
    Leaves alone: everything in models without functions.
    Options: ``max_nodes`` (default 1,000,000): more nodes than this after inlining is a ``LimitError``; the number is
    computed before anything is inlined.
    References: ONNX IR specification, "Functions".
    """

    name: ClassVar[str] = "inline-functions"
    promise: ClassVar[Promise] = "exact"

    max_nodes: int = 1_000_000

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Inline everything at once; weights stay where they are."""
        if not model.header.functions:
            return PassResult(False)
        sizes = expanded_sizes(model.header.functions)
        total = sum(sizes.get(node.op_type, 1) for node in called(model))
        if total > self.max_nodes:
            raise LimitError(f"inlining the functions of the model gives {total} nodes, more than {self.max_nodes}")
        names = {key(function) for function in model.header.functions}
        count = sum(key(node) in names for node in called(model))
        proto = typed(model)
        try:
            inlined = onnx.inliner.inline_local_functions(proto)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(f"the functions of the model cannot be inlined: {' '.join(str(error).split())}") from error
        _adopt(model, inlined)
        return PassResult(True, {"calls": count, "functions": len(names)})


def _adopt(model: ir.Model, inlined: onnx.ModelProto) -> None:
    """Take over the nodes of ``inlined``, and the tensors that exist already from ``model``."""
    own = ir.initializers(model)
    fresh = ir.from_proto(inlined)
    signature = {tensor.name for tensor in model.graph.inputs}
    for tensor in list(fresh.all_tensors()):
        if tensor.name in own and not isinstance(tensor, ir.Constant):
            tensor.to_constant(own[tensor.name]._values, export_dtype=own[tensor.name]._export_dtype)
            if not tensor.outputs or tensor.name in model.loose:
                fresh.loose[tensor.name] = tensor
    declared = {tensor.name: tensor for tensor in model.graph.outputs}
    for tensor in fresh.graph.outputs:
        if not isinstance(tensor, ir.Constant):
            twin = declared[tensor.name]
            tensor.dtype, tensor.shape, tensor.type, tensor.info = twin.dtype, twin.shape, twin.type, twin.info
    fresh.graph.inputs = [
        tensor for tensor in fresh.graph.inputs if tensor.name in signature or not isinstance(tensor, ir.Constant)
    ]
    model.graph, model.header, model.loose = fresh.graph, fresh.header, fresh.loose
