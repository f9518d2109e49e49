"""Evaluates nodes whose inputs are all constant, with the kernels that would have run them, within a memory budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.dtypes import to_numpy
from onnxprune.ir.exporter import node_proto, tensor_proto
from onnxprune.ir.trial import runtime_errors
from onnxprune.ir.types import value_info

Array = np.ndarray[Any, Any]
_EMBEDDED_ELEMENTS = 1024
_FED_DTYPES = frozenset("?bBhHiIlLqQefdFD")


@dataclass
class Budget:
    """Bytes that results may have: each ``extra`` plus ``ratio`` times its inputs, all of them together ``left``.

    The sum matters: forty concatenations of a tensor with itself are each harmless.
    """

    extra: int
    ratio: int
    left: float

    def take(self, result: float, inputs: int) -> bool:
        """Tell whether a result of ``result`` bytes made from ``inputs`` bytes is allowed, and count it if so."""
        if result > self.extra + self.ratio * inputs or result > self.left:
            return False
        self.left -= result
        return True


def evaluate(
    model: ir.Model, nodes: Sequence[ir.Node], budget: Budget
) -> tuple[dict[str, Array], list[tuple[ir.Node, str]]]:
    """Return the values of the outputs of ``nodes`` by name, and the nodes left out with the reason.

    Every input of every node is an initializer. All nodes run in one session; when that fails, each runs in its own.
    """
    refused = [(node, reason) for node in nodes if (reason := hazard(node))]
    blocked = {id(node) for node, _ in refused}
    wave, oversized = _within(model, [node for node in nodes if id(node) not in blocked], budget)
    refused += oversized
    values = _run(model, wave) if wave else {}
    if values is not None:
        return values, refused
    found: dict[str, Array] = {}
    for node in wave:
        single = _run(model, [node])
        if single is None:
            refused.append((node, "it cannot be evaluated by the CPU provider"))
        else:
            found.update(single)
    return found, refused


def hazard(node: ir.Node) -> str:
    """Return why evaluating ``node`` could kill or hang the process, else an empty string."""
    if "Conv" in node.op and any(0 in tensor.shape for tensor in node.inputs if tensor.name):
        return "it convolves an empty tensor"
    if node.op not in ("Div", "Mod"):
        return ""
    dividend, divisor = (ir.constant(tensor) for tensor in node.inputs[:2])
    if dividend is None or divisor is None or divisor.dtype.kind not in "iu":
        return ""
    if (divisor == 0).any():
        return "it divides an integer by zero"
    overflows = divisor.dtype.kind == "i" and (divisor == -1).any()
    return "its integer division overflows" if overflows and (dividend == np.iinfo(dividend.dtype).min).any() else ""


def _within(
    model: ir.Model, nodes: Sequence[ir.Node], budget: Budget
) -> tuple[list[ir.Node], list[tuple[ir.Node, str]]]:
    kept: list[ir.Node] = []
    refused: list[tuple[ir.Node, str]] = []
    sizes = _result_bytes(model, nodes)
    for node in nodes:
        inputs = sum(tensor_bytes(tensor) for tensor in node.inputs if tensor.name)
        result = _expected_bytes(node, sizes)
        if budget.take(result, inputs):
            kept.append(node)
        else:
            known = f"its result has {result:.0f} bytes"
            refused.append((node, "the size of its result is not known" if math.isinf(result) else known))
    return kept, refused


def _expected_bytes(node: ir.Node, sizes: dict[str, int]) -> float:
    """Bytes of all results; infinite when that cannot be told before they are computed."""
    result = sum((float(sizes.get(tensor.name, math.inf)) for tensor in node.outputs if tensor.name), 0.0)
    if math.isinf(result) and node.op in ("NonZero", "Unique", "Compress"):
        # what they select from bounds what they select
        return float(8 * sum(math.prod(t.shape) * max(len(t.shape), 1) for t in node.inputs if t.name))
    return result


def tensor_bytes(tensor: gs.Constant) -> int:
    """Return the bytes of an initializer's elements in memory."""
    return math.prod(int(size) for size in tensor.shape) * max(int(np.dtype(tensor.dtype).itemsize), 1)


def _result_bytes(model: ir.Model, nodes: Sequence[ir.Node]) -> dict[str, int]:
    """Bytes of every output whose dtype and shape ONNX shape inference finds."""
    proto, _ = _proto(model, nodes)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=False)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    sizes = {}
    for info in inferred.graph.output:
        tensor = info.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        # the length of text cannot be told from its type
        sized = tensor.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
        if sized and tensor.HasField("shape") and min(dims, default=0) >= 0:
            sizes[info.name] = math.prod(dims) * _itemsize(tensor.elem_type)
    return sizes


@cache
def _itemsize(elem_type: int) -> int:
    return max(int(to_numpy(elem_type).itemsize), 1)


def _proto(model: ir.Model, nodes: Sequence[ir.Node]) -> tuple[onnx.ModelProto, dict[str, gs.Constant]]:
    """A model of ``nodes`` alone: small constants inside, large ones as inputs (returned by name)."""
    proto = onnx.ModelProto(ir_version=model.header.ir_version)
    proto.opset_import.extend(entry for entry in model.header.opset_import if entry.domain in ("", "ai.onnx"))
    graph, fed = proto.graph, {}
    graph.name = "constants"
    graph.node.extend(node_proto(node) for node in nodes)
    inputs = {tensor.name: tensor for node in nodes for tensor in node.inputs if tensor.name}
    for name, tensor in inputs.items():
        if math.prod(tensor.shape) > _EMBEDDED_ELEMENTS and np.dtype(tensor.dtype).char in _FED_DTYPES:
            fed[name] = tensor
            graph.input.append(value_info(name, tensor.export_dtype, list(tensor.shape), None))
        else:
            graph.initializer.append(tensor_proto(tensor))
    for node in nodes:
        graph.output.extend(onnx.ValueInfoProto(name=tensor.name) for tensor in node.outputs if tensor.name)
    return proto, fed


def _run(model: ir.Model, nodes: Sequence[ir.Node]) -> dict[str, Array] | None:
    import onnxruntime as ort

    proto, fed = _proto(model, nodes)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    names = [info.name for info in proto.graph.output]
    refusals: tuple[type[Exception], ...] = (*runtime_errors(), TypeError)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(names, {name: tensor.values for name, tensor in fed.items()})
    except refusals:
        return None
    if not all(isinstance(result, np.ndarray) for result in results):
        return None
    return dict(zip(names, results, strict=True))
