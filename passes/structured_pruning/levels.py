"""The level database's error side: for every group the nested order of removal and the error of every width."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune import ir
from onnxprune.channels import ChannelGraph
from onnxprune.stats import Feeds, Statistics, collect, products
from onnxprune.stats.arrays import Array
from passes.structured_pruning import recurrent
from passes.structured_pruning.criteria import criterion, evidence
from passes.structured_pruning.obs import Curve


def build_levels(
    model: ir.Model,
    graph: ChannelGraph,
    feeds: Feeds | None,
    criterion_name: str = "obs",
    seed: int = 0,
    *,
    statistics: Statistics | None = None,
    importance: Mapping[str, float] | None = None,
    threads: int = 0,
) -> dict[str, Curve]:
    """A removal curve for every group of ``graph``, by group name.

    One pass over ``feeds`` (or none, where ``statistics`` of ``model`` are given or the criterion needs no data).
    ``importance`` weighs the relative error of each contraction, by node key. Raises UsageError for an unknown
    criterion.
    """
    chosen = criterion(criterion_name)
    if chosen.needs_data and statistics is None and feeds is not None:
        opened = recurrent.opened(model)
        known = products(opened)
        read = [contraction for group in graph.groups for contraction in group.contractions]
        nodes = dict.fromkeys(recurrent.product_key(contraction, known) for contraction in read)
        statistics = collect(opened, feeds, only=nodes, threads=threads, seed=seed)
    return {group.name: chosen.curve(evidence(model, group, statistics, importance, seed)) for group in graph.groups}


def keep_mask(curve: Curve, width: int) -> Array:
    """Boolean mask over units: the ``width`` that leave last are kept."""
    mask = np.ones(len(curve.order), bool)
    mask[curve.order[: len(curve.order) - width]] = False
    return mask
