"""What can be pruned, and why the rest cannot: the part of the API that measures nothing and writes no model."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxprune import ir
from onnxprune.canonical import canonicalize_model
from onnxprune.channels import ChannelGraph, links_of
from onnxprune.channels import analyze as channel_graph
from onnxprune.progress import Progress, SilentProgress

ModelLike = str | Path | onnx.ModelProto


def analyze(
    model: ModelLike,
    *,
    granularity: str = "head",
    freeze: str | None = None,
    freeze_initializers: bool = False,
    keep_batchnorm: bool = False,
    progress: Progress | None = None,
) -> ChannelGraph:
    """The groups of coupled units of a model in canonical form, and why everything else is frozen."""
    base = canonical(model, freeze_initializers=freeze_initializers, keep_batchnorm=keep_batchnorm)
    (progress or SilentProgress()).stage("analysing")
    return channel_graph(base, granularity=granularity, freeze=freeze)


def rules(model: ModelLike, *, freeze_initializers: bool = False, keep_batchnorm: bool = False) -> list[str]:
    """One line a node of the model in canonical form: what it links, or why it is a barrier."""
    base = canonical(model, freeze_initializers=freeze_initializers, keep_batchnorm=keep_batchnorm)
    linked = (links_of(node, base.opset(ir.domain(node))) for node in base.graph.nodes)
    return [f"{links.node} {links.op}: {links}" for links in linked]


def canonical(model: ModelLike, *, freeze_initializers: bool, keep_batchnorm: bool) -> ir.Model:
    """The canonical form of a model, with shapes."""
    source = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else ir.load(model)
    if freeze_initializers:
        ir.freeze_initializers(source)
    base, _ = canonicalize_model(source, keep_batchnorm=keep_batchnorm)
    ir.infer_shapes(base)
    return base
