"""What every architecture must show: its prunable share, and that pruning 30 % of everything equals masking it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
from proving import Masks, prove, random_keep

from onnxprune import canonicalize, channels, ir
from onnxprune.channels import ChannelGraph
from passes.structured_pruning.apply import prune

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Examination:
    """One model's row. Shares are 1 - (MACs, parameters) at every group's min_keep over those of the model.

    frozen: what keeps the rest, with the share of MACs that it keeps, largest first. error: of the oracle, in units of
    its tolerance (at most 1 where it holds); failure: its reason, empty where it holds. moved: whether pruning 30 % of
    every group changes the outputs at all. params: weights before, after that, and as the plan predicts.
    """

    nodes: int
    groups: int
    macs_share: float
    params_share: float
    frozen: Mapping[str, float]
    error: float
    failure: str
    moved: bool
    params: tuple[int, int, int]
    seconds: float


def examine(proto: onnx.ModelProto, feeds: Feeds, *, granularity: str = "head", seed: int = 0) -> Examination:
    """Canonicalises a model and examines it."""
    start = time.perf_counter()
    original = ir.from_proto(canonicalize(proto))
    ir.infer_shapes(original)
    found = examine_model(original, [feeds], granularity=granularity, seed=seed)
    return replace(found, seconds=time.perf_counter() - start)


def examine_model(
    original: ir.Model, calls: Sequence[Feeds], *, granularity: str = "head", seed: int = 0
) -> Examination:
    """Analyses a model in canonical form, prunes 30 % random units of every group, proves it on all calls, and runs the
    result optimised on the first. MACs are counted at the shapes of the first.
    """
    start, feeds = time.perf_counter(), calls[0]
    graph = channels.analyze(original, granularity=granularity)
    rng = np.random.default_rng(seed)
    keep = {g.name: mask for g in graph.groups if (mask := random_keep(g, rng, 0.3)) is not None}
    verdict = prove(original, graph, keep, calls)
    small = original.copy()
    prune(small, graph, keep)
    before, after = (run(ir.to_proto(model), feeds) for model in (original, small))
    kept = graph.shares(original, ir.shapes_for(original, {name: values.shape for name, values in feeds.items()})).kept
    macs_share, params_share = shares(original, graph, feeds)
    return Examination(
        nodes=len(original.graph.nodes),
        groups=len(graph.groups),
        macs_share=macs_share,
        params_share=params_share,
        frozen={each.reason: each.share.macs for each in kept},
        error=verdict.error,
        failure="" if verdict.ok else f"{verdict.where}: {verdict.reason}",
        moved=not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)),
        params=(ir.parameters(original), ir.parameters(small), predicted(original, graph, keep)),
        seconds=time.perf_counter() - start,
    )


def run(proto: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Outputs of ONNX Runtime with all of its optimisations, of a model that the checker accepts."""
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(map(np.asarray, session.run(None, dict(feeds))))


def shares(model: ir.Model, graph: ChannelGraph, feeds: Feeds) -> tuple[float, float]:
    """The share of MACs and of parameters that is prunable."""
    shapes = {name: values.shape for name, values in feeds.items()}
    least = model.copy()
    prune(least, graph, {group.name: np.arange(group.width) < group.min_keep for group in graph.groups})
    before, after = (ir.macs(each, ir.shapes_for(each, shapes)) for each in (model, least))
    left, whole = ir.parameters(least), ir.parameters(model)
    return 1 - after / before if before else 0.0, 1 - left / whole if whole else 0.0


def predicted(model: ir.Model, graph: ChannelGraph, keep: Masks) -> int:
    """Elements of all weights after the removal, by the plan alone."""
    gone = graph.removals(keep)
    return sum(
        math.prod(dim - len(gone.get((name, axis), ())) for axis, dim in enumerate(shape))
        for name, shape in ir.weight_shapes(model).items()
    )
