"""What small hand-made graphs need: a builder, the usual ends, and the proof that they prune right or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from graph_builder import Builder, SeededChooser, Value
from proving import prove
from random_graphs import random_feeds

from onnxprune import channels, ir
from onnxprune.ir import checker


def builder(opset: int) -> Builder:
    return Builder(SeededChooser(0), opset)


def conv(b: Builder, x: Value, out: int, k: int = 1) -> Value:
    n, c, h, w = x.shape
    weight = b.weight(out, c, k, k, fan_in=c * k * k)
    return b.op("Conv", [x, weight, b.weight(out)], (n, out, h, w), pads=[k // 2] * 4)


def classify(b: Builder, x: Value) -> Value:
    return b.op("Conv", [x, b.weight(3, x.shape[1], 1, 1)], (x.shape[0], 3, *x.shape[2:]))


def groups_of(model: onnx.ModelProto, granularity: str = "head") -> tuple[ir.Model, channels.ChannelGraph]:
    checker.check_model(model)
    original = ir.from_proto(model)
    ir.infer_shapes(original)
    return original, channels.analyze(original, granularity=granularity)


def check(model: onnx.ModelProto, least: int = 1, granularity: str = "head") -> list[int]:
    """Prunes every group alone to its minimum and at random, and all together; returns the widths of the groups."""
    rng = np.random.default_rng(0)
    feeds = random_feeds(model, rng)
    original, graph = groups_of(model, granularity)
    assert len(graph.groups) >= least, [str(f) for f in graph.frozen]
    together: dict[str, Any] = {}
    for group in graph.groups:
        step = max(group.multiple_of, 1)
        for count in {max(group.min_keep, step), step * (group.width // step // 2 + 1)}:
            if count >= group.width:
                continue
            keep = np.zeros(group.width, bool)
            keep[rng.permutation(group.width)[:count]] = True
            verdict = prove(original, graph, {group.name: keep}, feeds)
            assert verdict.ok, (group.name, np.flatnonzero(~keep), verdict)
            together[group.name] = keep
    verdict = prove(original, graph, together, feeds)
    assert verdict.ok, (together, verdict)
    return sorted(group.width for group in graph.groups)
