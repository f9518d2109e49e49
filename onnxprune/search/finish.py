"""From a chosen plan to the finished model: compensate, slice, prove, quantize, and see what became of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune import ir
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.search.plan import Plan, chosen_branches, narrowed
from onnxprune.search.workspace import Workspace
from onnxprune.stats import model_drift
from passes.block_removal import Branch
from passes.quantization import quantize
from passes.refinement import RefineOptions, refine
from passes.structured_pruning import recurrent
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
    aliases: Mapping[str, str] = field(default_factory=dict)
    """tensor of the compressed model -> the dense one that it stands for, where branches have left"""

    @property
    def worst_drift(self) -> float:
        """The drift of the output that drifted most."""
        return max(self.drift.values(), default=0.0)


def finish(work: Workspace, plan: Plan, keep: Mapping[str, np.ndarray], share: float = 1.0) -> Finished:
    """Builds a plan for good, refines it with this share of the effort, and proves it. Raises OnnxpruneError where the
    oracle finds a difference: the model is then not to be used.
    """
    return proved(work, built(work, plan, keep, share))


def built(work: Workspace, plan: Plan, keep: Mapping[str, np.ndarray], share: float) -> Finished:
    """Builds a plan, without proof: a model to be judged, and to be proved before it is used. `share`: of the effort's
    refinement, 0 for none.
    """
    gone = chosen_branches(work.branches, plan)
    removed = work.graph.removals(keep)
    floating, aliases = narrowed(work.base, work.graph, keep, gone)
    notes: tuple[str, ...] = ()
    if work.options.uses("compensation") and (removed or gone):
        work.progress.stage("compensating")
        form = work.fitting_form(floating)
        fitted = compensate(
            work.fitting_base,
            form,
            recurrent.slices(work.open_base, removed),
            aliases=aliases,
            reference=work.reference,
            statistics=work.statistics,
            options=Options(drift_correction=work.options.uses("drift-correction")),
        )
        recurrent.give_back(floating, form)
        notes = _left_alone(fitted)
    dropped = tuple(branch_tensor(work.base, branch) for branch in gone)
    fresh = Finished(plan, floating, floating, removed, keep, {}, None, dropped, notes, aliases)
    return _completed(work, fresh, _refined(work, fresh, share) if share else floating)


def refined(work: Workspace, done: Finished) -> Finished:
    """A model that was built without refinement, refined with the whole effort; the same where that changes nothing."""
    floating = _refined(work, done, 1.0)
    return done if floating is done.floating else _completed(work, done, floating)


def _completed(work: Workspace, done: Finished, floating: ir.Model) -> Finished:
    """The float model in the plan's precision, and what it does to the outputs."""
    compressed = floating
    if done.plan.scheme is not None:
        work.progress.stage("quantizing")
        compressed = quantize(floating, work.feeds, done.plan.scheme)
    work.progress.stage("comparing outputs")
    drift = model_drift(work.base, compressed, work.held)
    return replace(done, compressed=compressed, floating=floating, drift=drift)


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


def _refined(work: Workspace, done: Finished, share: float) -> ir.Model:
    """The float model with all weights moved together; the model itself where nothing is gained."""
    options = work.options
    if not (options.uses("compensation") and options.uses("refinement")) or work.feeds.synthetic:
        return done.floating
    if not (done.removed or done.dropped):
        return done.floating
    work.progress.stage("refining weights")
    floating = done.floating.copy()
    opened = work.opened(floating)
    spent = options.effort.refinement * share
    try:
        chosen = RefineOptions.within(
            spent, work.open_base, opened, work.feeds, epochs=options.effort.epochs, seed=options.seed
        )
    except ModelError:  # gradients are of fixed shapes
        work.progress.decide("refining is left out: the values of inputs decide sizes")
        return done.floating
    found = refine(
        work.open_base, opened, done.removed, work.feeds, held=work.held, aliases=done.aliases, options=chosen
    )
    if found.steps == 0:
        near = 0 < found.before <= chosen.enough
        why = "the outputs are near enough" if near else "refining brings the outputs no nearer"
        work.progress.decide(f"{why}: the weights stay as they were fitted")
        return done.floating
    work.progress.decide(
        f"refined {len(found.weights)} weight tensors in {found.steps} steps of {chosen.batch} samples: "
        f"squared error of the outputs {found.before:.3g} -> {found.after:.3g} on held-out samples"
    )
    if opened is not floating:
        adopt(floating, opened)
    return floating


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
