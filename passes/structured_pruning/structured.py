"""Structured pruning as a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxprune import channels, ir
from onnxprune.errors import UsageError
from onnxprune.pipeline import PassContext, PassResult, Promise, Skip
from onnxprune.stats import Feeds, Statistics, collect
from onnxprune.stats.arrays import Array
from passes.structured_pruning import recurrent
from passes.structured_pruning.allocate import widths_for_macs
from passes.structured_pruning.apply import prune
from passes.structured_pruning.compensate import Options, compensate
from passes.structured_pruning.criteria import criterion
from passes.structured_pruning.levels import build_levels, keep_mask
from passes.structured_pruning.obs import Curve

_SYNTHETIC_SAMPLES = 64


@dataclass(frozen=True)
class StructuredPruning:
    """Remove units (channels, neurons, heads) and re-fit what is left.

    Rewrites:
      1. The cheapest units of every group leave every tensor that they touch.
      2. The weights and biases of every contraction behind them are fitted to the dense activations.
    Requires: a canonical model; calibration input for criteria that use data and for compensation, else synthetic
    input. Guarantees: what is removed is never read; the result is that of the model with these units masked and the
    new weights. Leaves alone: frozen axes (``onnxprune analyze`` says why); groups that are already at their least
    width. Options:
      ratio: part of every group that is removed, 0 to below 1, default 0.
      macs: instead of a ratio the share of the MACs that may stay, over 0 to 1; widths then differ between groups.
      criterion: obs (default), magnitude-l1, magnitude-l2, bn-scale, wanda, geometric-median or random.
      compensate: whether rewrite 2 is done, default true.
      granularity: unit of attention, head (default) or head_dim.
      multiple: widths are kept at multiples of this where a group is wide enough, default 1.
    References: module ``obs``; drift-corrected targets as in He et al. 2017, arXiv 1707.06168, section 3.1.
    """

    ratio: float = 0.0
    macs: float | None = None
    criterion: str = "obs"
    compensate: bool = True
    granularity: str = "head"
    multiple: int = 1

    name: ClassVar[str] = "prune"
    promise: ClassVar[Promise] = "lossy"

    def __post_init__(self) -> None:
        criterion(self.criterion)
        if not 0 <= self.ratio < 1:
            raise UsageError(f"the pruning ratio must be at least 0 and below 1, not {self.ratio:g}")
        if self.macs is not None and (self.ratio or not 0 < self.macs <= 1):
            raise UsageError("give either a ratio, or macs over 0 and at most 1")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Prune in place."""
        graph = channels.analyze(model, granularity=self.granularity)
        skips = [Skip(frozen.axis[0], f"axis {frozen.axis[1]} is frozen: {frozen.reason}") for frozen in graph.frozen]
        if not graph.groups or (self.ratio == 0 and self.macs is None):
            return PassResult(False, skips=tuple(skips))
        feeds = ctx.feeds if ctx.feeds is not None else Feeds.synthetic(model, _SYNTHETIC_SAMPLES, ctx.seed)
        needs = self.compensate or criterion(self.criterion).needs_data
        statistics = collect(recurrent.opened(model), feeds, seed=ctx.seed) if needs else None
        curves = build_levels(model, graph, None, self.criterion, ctx.seed, statistics=statistics)
        widths = self._widths(model, graph, curves, feeds)
        keep = {
            name: keep_mask(curves[name], width) for name, width in widths.items() if width < len(curves[name].order)
        }
        if keep:
            self._apply(model, graph, keep, feeds, statistics)
        removed = sum(int((~mask).sum()) for mask in keep.values())
        return PassResult.of({"groups": len(keep), "units": removed}, skips)

    def _widths(
        self, model: ir.Model, graph: channels.ChannelGraph, curves: Mapping[str, Curve], feeds: Feeds
    ) -> dict[str, int]:
        if self.macs is not None:
            shapes = ir.shapes_for(model, feeds.call_shapes())
            return widths_for_macs(model, graph, curves, self.macs, shapes, multiple=self.multiple)
        return {group.name: narrowed(group, self.ratio, self.multiple) for group in graph.groups}

    def _apply(
        self,
        model: ir.Model,
        graph: channels.ChannelGraph,
        keep: Mapping[str, Array],
        feeds: Feeds,
        statistics: Statistics | None,
    ) -> None:
        dense = model.copy()
        prune(model, graph, keep)
        if self.compensate:
            removed = recurrent.slices(dense, graph.removals(keep))
            form = recurrent.opened(model)
            compensate(recurrent.opened(dense), form, removed, feeds, statistics=statistics, options=Options())
            recurrent.give_back(model, form)


def narrowed(group: channels.Group, ratio: float, multiple: int = 1) -> int:
    """The width of a group that loses ``ratio`` of its units, rounded to what it must and may be."""
    step = group.multiple_of * (multiple if group.width >= 2 * multiple * group.multiple_of else 1)
    width = round(group.width * (1 - ratio) / step) * step
    return min(group.width, max(width, step, group.min_keep))
