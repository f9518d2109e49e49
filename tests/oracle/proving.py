"""Prunes random units of a model and asks the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from random_graphs import random_feeds

from onnxprune import channels, ir
from onnxprune.channels import ChannelGraph, Group
from onnxprune.errors import ModelError
from onnxprune.stats import Feeds as Calibration
from passes.block_removal import branches, drop
from passes.structured_pruning.apply import prune
from passes.structured_pruning.compensate import compensate
from passes.verify_masking import Verdict, Weights, verify
from passes.verify_masking.plan import Removed

Masks = Mapping[str, npt.NDArray[np.bool_]]
Feeds = Sequence[Mapping[str, np.ndarray]]


@dataclass
class Outcome:
    """What one model showed: how many groups it has and the first verdict that fails, if any."""

    groups: int
    checked: int = 0
    failure: Verdict | None = None
    keep: Masks = field(default_factory=dict)


def random_keep(group: Group, rng: np.random.Generator, ratio: float | None = None) -> npt.NDArray[np.bool_] | None:
    """Keeps a random subset of a group's units that its constraints allow; None when it must keep all."""
    step = max(group.multiple_of, 1)
    counts = [k for k in range(step, group.width, step) if k >= max(group.min_keep, 1)]
    if not counts:
        return None
    count = rng.choice(counts) if ratio is None else min(counts, key=lambda k: abs(k - (1 - ratio) * group.width))
    keep = np.zeros(group.width, bool)
    keep[rng.permutation(group.width)[:count]] = True
    return keep


def prove(original: ir.Model, graph: ChannelGraph, keep: Masks, feeds: Feeds, *, float64: bool = True) -> Verdict:
    """Prunes a copy and verifies it; where float32 rounding may be to blame, float64 decides."""
    small = original.copy()
    prune(small, graph, keep)
    removed = graph.removals(keep)
    return _decided(original, small, removed, feeds) if float64 else verify(original, small, removed, feeds)


def prove_groups(proto: onnx.ModelProto, feeds: Feeds, rng: np.random.Generator, *, most: int = 3) -> Outcome:
    """Prunes up to `most` groups of a model alone, then all of them together."""
    original = ir.from_proto(proto)
    ir.infer_shapes(original)
    graph = channels.analyze(original, granularity="head" if rng.random() < 0.5 else "head_dim")
    outcome = Outcome(len(graph.groups))
    masks = {g.name: keep for g in graph.groups if (keep := random_keep(g, rng)) is not None}
    chosen = rng.permutation(sorted(masks))[:most]
    trials: list[Masks] = [{name: masks[name]} for name in chosen]
    for keep in [*trials, masks] if len(masks) > 1 else trials:
        verdict = prove(original, graph, keep, feeds)
        outcome.checked += 1
        if not verdict.ok:
            outcome.failure, outcome.keep = verdict, keep
            break
    return outcome


def is_noticed(proto: onnx.ModelProto, op: str, rng: np.random.Generator) -> bool | None:
    """Whether pruning a model goes wrong, as it must with a broken rule for `op`; None for one without the operator."""
    if not any(node.op_type == op for node in proto.graph.node):
        return None
    try:
        return prove_groups(proto, random_feeds(proto, rng), rng).failure is not None
    except ModelError:
        return True


def expect_notice(op: str, make: Callable[[int], onnx.ModelProto]) -> None:
    """Fails unless one of at most 25 random graphs with the operator goes wrong; `make` draws a graph by its seed."""
    tried = 0
    for seed in range(1500):
        noticed = is_noticed(make(seed), op, np.random.default_rng(seed))
        tried += noticed is not None
        if noticed:
            return
        if tried == 25:
            break
    raise AssertionError(f"{tried} random graphs with {op} did not notice that its rule is broken")


def prove_final(proto: onnx.ModelProto, feeds: Feeds, rng: np.random.Generator) -> Verdict:
    """Prunes all groups, drops half of the residual branches, compensates, and verifies before and after that."""
    original = ir.from_proto(proto)
    ir.infer_shapes(original)
    graph = channels.analyze(original)
    keep = {g.name: mask for g in graph.groups if (mask := random_keep(g, rng)) is not None}
    small = original.copy()
    prune(small, graph, keep)
    gone = [branch for branch in branches(small) if rng.random() < 0.5]
    adds = {ir.node_key(node): node for node in original.graph.nodes}
    dropped = [str(adds[branch.add].inputs[branch.operand].name) for branch in gone]
    aliases = drop(small, gone)
    ir.infer_shapes(small)
    removed = graph.removals(keep)
    verdict = _decided(original, small, removed, feeds, dropped, "original")
    if verdict.ok:
        noisy = {
            n: np.concatenate([a + 0.1 * rng.standard_normal(a.shape) for _ in range(4)]) for n, a in feeds[0].items()
        }
        data = Calibration.from_arrays({n: a.astype(np.float32) for n, a in noisy.items()}, original)
        compensate(original, small, removed, data, aliases=aliases)
        verdict = _decided(original, small, removed, feeds, dropped, "final")
    return verdict


def _decided(
    original: ir.Model,
    small: ir.Model,
    removed: Removed,
    feeds: Feeds,
    dropped: Sequence[str] = (),
    weights: Weights = "original",
) -> Verdict:
    verdict = verify(original, small, removed, feeds, dropped=dropped, weights=weights)
    if not verdict.ok and np.isfinite(verdict.error):
        verdict = verify(original, small, removed, feeds, dropped=dropped, weights=weights, float64=True)
    return verdict
