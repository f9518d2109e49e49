"""From a chosen plan to the finished model: compensate, slice, prove, quantize, and see what became of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune import ir
from onnxprune.errors import OnnxpruneError
from onnxprune.search.plan import Plan, chosen_branches, narrowed
from onnxprune.search.workspace import Workspace
from onnxprune.stats import model_drift
from passes.block_removal import Branch
from passes.quantization import quantize
from passes.refinement import RefineOptions, refine
from passes.structured_pruning.compensate import UNASSIGNABLE, CompensationReport, Options, compensate
from passes.structured_pruning.splice import adopt
from passes.verify_masking import Verdict, Weights, verify


@dataclass(frozen=True)
class Finished:
    """A finished model: `compressed` as it will be written, `floating` before quantization, drift by output on held-out
    samples, `notes` for the report.
    """

    plan: Plan
    compressed: ir.Model
    floating: ir.Model
    removed: Mapping[tuple[str, int], np.ndarray]
    keep: Mapping[str, np.ndarray]
    drift: Mapping[str, float]
    oracle: Verdict | None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def worst_drift(self) -> float:
        """The drift of the output that drifted most."""
        return max(self.drift.values(), default=0.0)


def finish(work: Workspace, plan: Plan, keep: Mapping[str, np.ndarray]) -> Finished:
    """Builds a plan for good, and proves it. Raises OnnxpruneError where the oracle finds a difference: the model is
    then not to be used.
    """
    return proved(work, built(work, plan, keep))


def built(work: Workspace, plan: Plan, keep: Mapping[str, np.ndarray]) -> Finished:
    """Builds a plan for good, without proof: a model to be judged, and to be proved before it is used."""
    gone = chosen_branches(work.branches, plan)
    removed = work.graph.removals(keep)
    floating, alias = narrowed(work.base, work.graph, keep, gone)
    notes: tuple[str, ...] = ()
    if work.options.uses("compensation") and (removed or gone):
        work.progress.stage("compensating")
        opened = work.opened(floating)
        fitted = compensate(
            work.open_base,
            opened,
            removed,
            aliases=alias,
            reference=work.reference,
            statistics=work.statistics,
            options=Options(drift_correction=work.options.uses("drift-correction")),
        )
        if work.options.uses("refinement") and not work.feeds.synthetic:
            _refined(work, opened, removed, alias)
        if opened is not floating:
            adopt(floating, opened)
        notes = _left_alone(fitted)
    compressed = floating
    if plan.scheme is not None:
        work.progress.stage("quantizing")
        compressed = quantize(floating, work.feeds, plan.scheme)
    work.progress.stage("comparing outputs")
    drift = model_drift(work.base, compressed, work.held)
    dropped = tuple(branch_tensor(work.base, branch) for branch in gone)
    return Finished(plan, compressed, floating, removed, keep, drift, None, dropped, notes)


def proved(work: Workspace, done: Finished) -> Finished:
    """The same with the oracle's verdict, where the search is to prove anything. Raises OnnxpruneError where it finds a
    difference.
    """
    gone = chosen_branches(work.branches, done.plan)
    if not work.options.verify or not (done.removed or gone):
        return done
    sliced, _ = narrowed(work.base, work.graph, done.keep, gone)
    # the slices with the original's weights, and the final weights, which prove no slicing
    verdict = _verdict(work, sliced, done.removed, gone, "original")
    if work.options.uses("compensation"):
        verdict = _verdict(work, done.floating, done.removed, gone, "final")
    return replace(done, oracle=verdict)


def _refined(
    work: Workspace, opened: ir.Model, removed: Mapping[tuple[str, int], np.ndarray], alias: Mapping[str, str]
) -> None:
    """Moves all weights of the candidate together, and says what that did to the outputs."""
    work.progress.stage("refining")
    effort = work.options.effort
    share = effort.refinement / effort.finalists
    options = RefineOptions.within(share, work.base, work.shapes, seed=work.options.seed)
    found = refine(work.open_base, opened, removed, work.feeds, aliases=alias, options=options)
    if found.steps == 0:
        work.progress.decide("refining brings the outputs no nearer: the weights stay as they were fitted")
    else:
        work.progress.decide(
            f"refined {len(found.weights)} weight tensors in {found.steps} steps of {options.batch} samples: "
            f"squared error of the outputs {found.before:.3g} -> {found.after:.3g} on held-out samples"
        )


def _left_alone(fitted: CompensationReport) -> tuple[str, ...]:
    count = sum(reason == UNASSIGNABLE for reason in fitted.skipped.values())
    return (f"{count} contractions keep their sliced weights: {UNASSIGNABLE}",) if count else ()


def _verdict(
    work: Workspace,
    floating: ir.Model,
    removed: Mapping[tuple[str, int], np.ndarray],
    gone: Sequence[Branch],
    weights: Weights,
) -> Verdict:
    work.progress.stage("proving", "the pruned model against the masked original")
    verdict = verify(
        work.base,
        floating,
        removed,
        work.held,
        dropped=[branch_tensor(work.base, branch) for branch in gone],
        weights=weights,
    )
    if not verdict:
        raise OnnxpruneError(f"the pruned model is not the masked original: {verdict.reason}; report this as a bug")
    return verdict


def branch_tensor(model: ir.Model, branch: Branch) -> str:
    """Name of the tensor that a branch adds."""
    add = next(node for node in model.graph.nodes if ir.node_key(node) == branch.add)
    return str(add.inputs[branch.operand].name)
