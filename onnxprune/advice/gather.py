"""Gathers the evidence once: one analysis, one look at the data, and about a second of measurements."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.advice import machine
from onnxprune.advice.facts import Data, Facts, Graph, Kind, Latency, Product, Pruning
from onnxprune.advice.families import SORTS, Evidence, family_of, sort_of
from onnxprune.api.analysis import Examined, examine, largest_cause
from onnxprune.api.request import targets
from onnxprune.channels import Share, Shares
from onnxprune.errors import ModelError
from onnxprune.progress import Progress
from onnxprune.search.prepare import concrete_inputs, load_feeds, open_dimensions
from onnxprune.stats import Feeds, products, trimmed
from onnxprune.units import parse_target
from passes.block_removal import branches
from passes.quantization import is_quantized, reads_weights_most
from passes.quantization.selection import contractions
from runtime_bench import Bench, Target

LOOSE = 2.0
"""MACs a byte moved below which a product waits for memory: a matrix times one vector has a quarter."""
_LOOK = 0.1
_SHORT = 0.05  # seconds of a run up to which the lossless model is measured too


@dataclass(frozen=True)
class Request:
    """What `onnxprune advise` is asked; field names are option names."""

    path: Path
    calib_data: str | Path | None = None
    target_latency: str | None = None
    eps: tuple[str, ...] = ("cpu",)
    ep_options: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    batch: int | None = None
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    freeze: str | None = None
    granularity: str = "head"
    freeze_initializers: bool = False
    keep_batchnorm: bool = False


def gather(request: Request, progress: Progress) -> Facts:
    """All evidence. Raises ModelError, DataError, UsageError and ProviderError as a compression would."""
    progress.stage("reading", request.path.name)
    found = examine(
        request.path,
        granularity=request.granularity,
        freeze=request.freeze,
        freeze_initializers=request.freeze_initializers,
        keep_batchnorm=request.keep_batchnorm,
        progress=progress,
    )
    open_dimensions(found.source, request.input_shapes)
    feeds = load_feeds(request.calib_data, found.source, 0, request.input_shapes)
    inputs = concrete_inputs(found.base, feeds, request.batch or 1, request.input_shapes)
    shapes = ir.shapes_for(found.base, inputs)
    shares = found.graph.shares(found.base, shapes)
    pruning = _pruning(found, shapes, shares)
    made = targets(request.eps, request.threads, request.batch, inputs, request.ep_options)
    progress.stage("measuring", "the input model")
    open_inputs = _open_inputs(found.base, request)
    try:
        latency = _latency(request.path, found.base, made, feeds)
    except ModelError as error:
        if not open_inputs:
            raise
        raise ModelError(f"{error}; give --calib-data or --input-shape: sizes were assumed") from error
    graph = _graph(found, shapes, inputs, pruning, open_inputs)
    goal = parse_target(request.target_latency) if request.target_latency else None
    return Facts(
        graph=graph,
        pruning=pruning,
        data=Data(not feeds.synthetic, len(feeds), _real(trimmed(feeds, found.base), inputs)),
        host=machine.read(request.eps, made[0].threads, given=request.threads is not None),
        latency=latency,
        target=None if goal is None else goal.in_seconds(latency.seconds) / latency.seconds,
        target_text="" if goal is None else goal.text,
    )


def _real(feeds: Feeds, inputs: Mapping[str, Sequence[int]]) -> float:
    """What a sample without its padding is of one that latency is measured on."""
    if feeds.padded is None:
        return 1.0
    return float(feeds.padded.lengths.mean()) / max(inputs[name][1] for name in feeds.padded.names)


def _pruning(found: Examined, shapes: Mapping[str, Sequence[int]], shares: Shares) -> Pruning:
    inside = ir.body_names(found.base)
    groups = found.graph.groups
    kinds = [
        Kind(kind, len(same), sum(g.width for g in same), max(g.width for g in same))
        for kind in dict.fromkeys(group.kind for group in groups)
        if (same := [group for group in groups if group.kind == kind])
    ]
    dropped = branches(found.base, shapes)
    within = {key for branch in dropped for key in branch.dropped}
    gone = sum(ir.node_macs(node, shapes) for node in found.base.graph.nodes if ir.node_key(node) in within)
    return Pruning(
        kinds=tuple(kinds),
        prunable=shares.prunable if groups else Share(0.0, 0.0),
        kept=shares.kept,
        nothing="" if groups else largest_cause(shares),
        hidden=sum(group.producers[0][0] in inside for group in groups),
        branches=len(dropped),
        branch_macs=gone / max(shares.macs, 1),
        products=tuple(
            Product(each.groups, each.size, math.prod(shapes[each.output]) // each.outputs)
            for each in products(found.base).values()
            if each.output in shapes
        ),
    )


def _graph(
    found: Examined,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Mapping[str, tuple[int, ...]],
    pruning: Pruning,
    open_inputs: tuple[str, ...],
) -> Graph:
    base = found.base
    counted = [
        (node, count * n) for node, n in ir.repeated_nodes(base, shapes) if (count := ir.node_macs(node, shapes))
    ]
    total = max(sum(count for _, count in counted), 1)
    macs, ops = dict.fromkeys(SORTS, 0.0), Counter(node.op for node in ir.all_nodes(base))
    for node, count in counted:
        macs[sort_of(node)] += count / total
        ops[sort_of(node)] += 1
    quantized = is_quantized(base)
    eight = {} if quantized else {ir.node_key(node): node.op for node in contractions(base)}
    median, loose = _intensity(counted, shapes)
    return Graph(
        family=family_of(Evidence(macs, ops, pruning.branches)),
        nodes=found.nodes,
        opset=found.source.opset(),
        params=ir.parameters(base),
        macs=sum(count for _, count in counted),
        ops=macs,
        float_type=_float_type(base),
        quantized=quantized,
        int8=sum(count for node, count in counted if ir.node_key(node) in eight) / total,
        dynamic=sum(count for node, count in counted if eight.get(ir.node_key(node), "Conv") != "Conv") / total,
        intensity=median,
        loose=loose,
        heavy=not quantized and reads_weights_most(base),
        overridable=len(base.graph.inputs) - len(ir.feed_inputs(base)),
        inputs=inputs,
        open_inputs=open_inputs,
    )


def _intensity(counted: Sequence[tuple[gs.Node, int]], shapes: Mapping[str, Sequence[int]]) -> tuple[float, float]:
    """Of the MACs, the median of the MACs that each byte of their node's operands serves, and the share under LOOSE."""
    if not counted:
        return 0.0, 0.0
    rates = np.array([count / max(_bytes(node, shapes), 1) for node, count in counted])
    weights = np.array([count for _, count in counted], float)
    order = np.argsort(rates)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(rates[order][middle]), float(weights[rates < LOOSE].sum() / weights.sum())


def _bytes(node: gs.Node, shapes: Mapping[str, Sequence[int]]) -> int:
    sizes = (
        math.prod(shapes[tensor.name]) * (np.dtype(tensor.dtype).itemsize if tensor.dtype is not None else 4)
        for tensor in (*node.inputs, *node.outputs)
        if tensor.name in shapes
    )
    return sum(sizes)


def _float_type(model: ir.Model) -> str:
    """The floating-point type that most elements of the weights have; "" where there are none."""
    counts: Counter[str] = Counter()
    for graph in ir.graphs(model):
        for tensor in ir.initializers(graph).values():
            if np.dtype(tensor.dtype).kind == "f" or "float" in np.dtype(tensor.dtype).name:
                counts[np.dtype(tensor.dtype).name] += math.prod(tensor.shape)
    return counts.most_common(1)[0][0] if counts else ""


def _open_inputs(model: ir.Model, request: Request) -> tuple[str, ...]:
    """Inputs with open sizes behind the first axis that neither data nor options give."""
    if request.calib_data is not None:
        return ()
    tensors: Iterable[ir.Variable] = ir.feed_inputs(model)
    return tuple(
        tensor.name
        for tensor in tensors
        if tensor.name not in request.input_shapes
        and any(not isinstance(size, int) for size in (tensor.shape or ())[1:])
    )


def _latency(path: Path, base: ir.Model, made: Sequence[Target], feeds: Feeds) -> Latency:
    """P50 of the input model on the slowest target, and the worst ratio of its canonical form."""
    arrays = feeds.measured()
    seconds, ratios = [], []
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        lossless = Path(folder) / "lossless.onnx"
        ir.save(base, lossless)
        for target in made:
            with Bench(target, arrays) as bench:
                seconds.append(bench.quick(path, seconds=_LOOK))
                if seconds[-1] < _SHORT:
                    ratios.append(bench.quick_ratio(path, [lossless], seconds=2 * _LOOK)[0].ratio)
    return Latency(max(seconds), max(ratios) if len(ratios) == len(made) else None)
