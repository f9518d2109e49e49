"""Prunes random units of a model and asks the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune import channels, ir
from onnxprune.channels import ChannelGraph, Group
from passes.structured_pruning.apply import prune
from passes.verify_masking import Verdict, verify

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
    verdict = verify(original, small, removed, feeds)
    if not verdict.ok and float64 and np.isfinite(verdict.error):
        verdict = verify(original, small, removed, feeds, float64=True)
    return verdict


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
