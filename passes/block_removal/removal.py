"""Block removal as a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassResult, Promise, Skip
from passes.block_removal.branches import branches, drop
from passes.structured_pruning.compensate import compensate


@dataclass(frozen=True)
class BlockRemoval:
    """Drop residual branches and re-fit what is left.

    Rewrites:
      1. The Add of a branch is replaced by its other operand; nodes that only the branch needed are removed.
      2. An activation that would now follow itself is removed.
      3. The contractions before and behind are fitted to the dense activations after the dropped branches.
    Requires: shapes of the tensors; calibration input for rewrite 3, which is left out without.
    Guarantees: the result is that of the model with these branches times zero, up to rewrite 3.
    Leaves alone: branches that something else reads, that another input feeds, or whose sum has another shape.
    Options:
      branches: names of branches (the outputs of their Adds), joined by ``+``, default none.
      compensate: whether rewrite 3 is done, default true.
    References: Veit et al. 2016, arXiv 1605.06431 (residual networks bear the loss of branches).
    """

    branches: tuple[str, ...] = ()
    compensate: bool = True

    name: ClassVar[str] = "drop-branches"
    promise: ClassVar[Promise] = "lossy"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Drop in place."""
        shapes = None
        if ctx.feeds is not None:
            shapes = ir.shapes_for(model, ctx.feeds.call_shapes())
        found = {branch.name: branch for branch in branches(model, shapes)}
        chosen = [found[name] for name in found if name in self.branches]
        skips = [Skip(name, "not a branch that can be dropped") for name in self.branches if name not in found]
        if chosen:
            dense = model.copy()
            aliases = drop(model, chosen)
            if self.compensate and ctx.feeds is not None:
                compensate(dense, model, {}, ctx.feeds, aliases=aliases)
        return PassResult.of({"branches": len(chosen)}, skips)
