"""The shares that the plan gives are those of a model that was really pruned, and they add up."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import SeededChooser
from random_graphs import random_feeds, random_model

from onnxprune import canonicalize, channels, ir
from passes.structured_pruning.apply import prune


@pytest.mark.parametrize("seed", range(30))
def test_shares_are_those_of_pruned_models(seed: int) -> None:
    proto = random_model(SeededChooser(seed), most=12)
    (feeds,) = random_feeds(proto, np.random.default_rng(0))
    model = ir.from_proto(canonicalize(proto))
    ir.infer_shapes(model)
    graph = channels.analyze(model)
    inputs = {name: values.shape for name, values in feeds.items()}
    shapes = ir.shapes_for(model, inputs)
    found = graph.shares(model, shapes)
    everything = (ir.macs(model, shapes), ir.parameters(model))
    assert (found.macs, found.params) == everything
    choices = {None: graph.groups, **{group.name: (group,) for group in graph.groups[:3]}}
    for name, groups in choices.items():
        least = model.copy()
        prune(least, graph, {group.name: np.arange(group.width) < group.min_keep for group in groups})
        left = (ir.macs(least, ir.shapes_for(least, inputs)), ir.parameters(least))
        share = found.prunable if name is None else found.groups[name]
        assert share == pytest.approx([1 - a / b for a, b in zip(left, everything, strict=True)], abs=1e-9)
    for which in (0, 1):
        parts = [found.prunable[which], found.least[which], *(each.share[which] for each in found.kept)]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(1, abs=1e-9)
