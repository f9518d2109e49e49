"""Prices: the latency terms of a scheme on a target, from the table, and the form of a cluster in each scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from onnxprune import ir
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.search.latency_model import TablePlan, plan_table
from onnxprune.search.macs_prices import MacsPrices, Prices
from onnxprune.search.solve import LatencyTerm
from onnxprune.search.workspace import Workspace
from passes.quantization import Scheme, fake_quantize_for_latency
from runtime_bench import LatencyTable


def scheme_name(scheme: Scheme | None) -> str:
    """How reports and table keys call a scheme."""
    if scheme is None:
        return "float"
    names = {"dynamic": "dynamic-int8", "weight-only": "weight-only-int4", "float16": "float16"}
    text = names.get(scheme.kind, f"static-int8-{scheme.activation}")
    return f"{text}, {len(scheme.exclude)} nodes in float" if scheme.exclude else text


def price(
    work: Workspace,
    table: LatencyTable,
    levels: Mapping[str, tuple[int, ...]],
    branch_of: Mapping[str, int],
    scheme: Scheme | None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[LatencyTerm, ...]:
    """Latency terms of the base model in one scheme on the target of `table`. Clusters of excluded nodes are priced in
    float. Without the table, prices are multiply-accumulates, the same in every scheme.
    """
    if not work.options.uses("latency-table"):
        return _terms(_plan(work, levels, branch_of, None), MacsPrices(), tell)
    if scheme is not None and scheme.exclude:
        whole = _plan(work, levels, branch_of, replace(scheme, exclude=()))
        kept = _plan(work, levels, branch_of, None)
        plain, quantized = _terms(kept, table, tell), _terms(whole, table, tell)
        excluded = set(scheme.exclude)
        return tuple(
            p if cluster.nodes & excluded else q for p, q, cluster in zip(plain, quantized, whole.priced, strict=True)
        )
    return _terms(_plan(work, levels, branch_of, scheme), table, tell)


def branch_seconds(work: Workspace, scheme: Scheme | None) -> dict[str, float]:
    """What each residual branch takes by the table in a scheme, at full width, summed over the targets."""
    measured = work.options.uses("latency-table")
    plan = _plan(work, {}, {}, None if scheme is None or not measured else replace(scheme, exclude=()))
    totals = dict.fromkeys((branch.name for branch in work.branches), 1e-9)
    for table in work.tables:
        terms = _terms(plan, table if measured else MacsPrices(), lambda text: None)
        for branch in work.branches:
            inside = set(branch.dropped)
            parts = (t.seconds for t, cluster in zip(terms, plan.priced, strict=True) if cluster.nodes & inside)
            totals[branch.name] += float(sum(parts))
    return totals


def _plan(
    work: Workspace, levels: Mapping[str, tuple[int, ...]], branch_of: Mapping[str, int], scheme: Scheme | None
) -> TablePlan:
    def finish(model: ir.Model) -> onnx.ModelProto:
        if scheme is None:
            return ir.to_proto(work.written(model))
        try:
            return without_borders(ir.to_proto(work.written(fake_quantize_for_latency(model, scheme))))
        except ModelError:  # nothing in this cluster has a quantized form: it runs as it is
            return ir.to_proto(work.written(model))

    tag = ", ".join((scheme_name(scheme), *(each.name for each in work.spelling)))
    return plan_table(work.base, work.graph, work.shapes, levels, branch_of, finish, tag)


def _terms(plan: TablePlan, table: Prices, tell: Callable[[str], None]) -> tuple[LatencyTerm, ...]:
    built = 0

    def build(key: str) -> bytes:
        nonlocal built
        built += 1
        tell(f"{built} of {len(plan.builders)}")
        try:
            return plan.builders[key]()
        except OnnxpruneError:  # a level that cannot be built is a level that cannot be measured
            return b""

    return tuple(_without_gaps(term) for term in plan.terms(table.lookup(plan.builders, build)))


def _without_gaps(term: LatencyTerm) -> LatencyTerm:
    """Levels that could not be measured cost as much as the dearest one that could: nothing is gained by them."""
    if np.isfinite(term.seconds).all():
        return term
    known = term.seconds[np.isfinite(term.seconds)]
    return replace(term, seconds=np.where(np.isfinite(term.seconds), term.seconds, known.max() if known.size else 0.0))


def without_borders(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A quantized model whose inputs and outputs are the quantized tensors themselves, as between clusters of a whole
    model; a model in half precision with inputs and outputs in half precision.
    """
    graph = proto.graph
    types = {t.name: t.data_type for t in graph.initializer}
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name: value for value in graph.output}
    halved = any(_target(node) == onnx.TensorProto.FLOAT16 for node in graph.node)
    gone = []
    for node in graph.node:
        enters = node.op_type == "QuantizeLinear" or _target(node) == onnx.TensorProto.FLOAT16
        leaves = node.op_type == "DequantizeLinear" or (halved and _target(node) == onnx.TensorProto.FLOAT)
        if enters and _is_float(inputs.get(node.input[0])) and _readers(graph, node.input[0]) == 1:
            border, name = inputs[node.input[0]], node.output[0]
        elif leaves and node.output[0] in outputs and not _readers(graph, node.output[0]):
            border, name = outputs[node.output[0]], node.input[0]
        else:
            continue
        cast = node.op_type == "Cast"
        narrow = onnx.TensorProto.FLOAT16 if cast else types.get(node.input[2], onnx.TensorProto.UINT8)
        border.name, border.type.tensor_type.elem_type = name, narrow
        gone.append(node)
    for node in gone:
        graph.node.remove(node)
    return proto


def _target(node: onnx.NodeProto) -> int | None:
    """The type that a Cast gives; None for other nodes."""
    return next((item.i for item in node.attribute if node.op_type == "Cast" and item.name == "to"), None)


def _is_float(value: onnx.ValueInfoProto | None) -> bool:
    return value is not None and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def _readers(graph: onnx.GraphProto, name: str) -> int:
    return sum(list(node.input).count(name) for node in graph.node)
