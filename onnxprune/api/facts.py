"""From what the search found to the data classes of the report."""

from __future__ import annotations

import hashlib
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxprune import ir
from onnxprune.channels import ChannelGraph
from onnxprune.pipeline import PassRecord
from onnxprune.report import (
    DriftFacts,
    FrontFacts,
    GroupFacts,
    LatencyFacts,
    LatencyTableFacts,
    ModelFacts,
    PassFacts,
    PredictionFacts,
    RemovedSlices,
    Report,
    SpeedupFacts,
    TargetFacts,
)
from onnxprune.search.acceptance import Acceptance
from onnxprune.search.certify import Certificate
from onnxprune.search.finish import Finished
from onnxprune.search.prediction import Pair, rank_correlation
from onnxprune.search.prepare import Prepared
from onnxprune.search.pricing import scheme_name
from onnxprune.search.resources import resources
from onnxprune.search.workspace import Workspace
from runtime_bench import Arm, Target, versions
from runtime_bench.host import host

DRIFT_METRIC = "relative output error on held-out samples"
WARN_DRIFT = 0.1


def new_report(prepared: Prepared, target: TargetFacts, seed: int) -> Report:
    """The report of a run that has read its model and done nothing else yet."""
    return Report(
        model=model_facts(prepared.source, prepared.path, prepared.input_shapes, str(prepared.path), prepared.base),
        target=target,
        seed=seed,
        host=host(),
        versions=versions(),
        passes=pass_facts(prepared.records),
    )


def fill_result(report: Report, prepared: Prepared, work: Workspace, done: Finished) -> Path:
    """Says in the report what became of the model, all but latency. Returns the file of the finished model."""
    path = work.file(done.compressed, "output")
    report.output = model_facts(done.compressed, path, prepared.input_shapes, None)
    report.macs_ratio = report.output.macs / max(report.model.macs, 1)
    report.params_ratio = report.output.params / max(report.model.params, 1)
    report.groups = group_facts(work.graph, done.keep)
    report.dropped_branches = done.dropped
    report.notes.extend(done.notes)
    report.scheme = scheme_name(done.plan.scheme)
    report.float_nodes = done.plan.scheme.exclude if done.plan.scheme else ()
    report.drift = DriftFacts(DRIFT_METRIC, done.worst_drift, dict(done.drift), prepared.feeds.synthetic)
    if done.worst_drift > WARN_DRIFT:
        report.notes.append(f"warning: the outputs drift by {done.worst_drift:.3f}; check the metric you care about")
    before, after = report.opset = (prepared.source.opset(), done.compressed.opset())
    if before != after:
        report.notes.append(f"the opset was raised from {before} to {after}")
    if done.plan.scheme is not None and done.plan.scheme.seven_bits:
        report.notes.append(
            "8-bit weights keep to 7 bits: this processor has no VNNI, and its sums of products saturate"
        )
    if work.predictions:
        report.prediction = prediction_facts(work.predictions)
    if done.oracle is not None:
        report.oracle = {"ok": done.oracle.ok, "error": done.oracle.error}
    report.peak_memory_bytes = peak_memory()
    return path


def fill_latency_table(report: Report, work: Workspace) -> None:
    """Says in the report what came from the table that the user named, if any, and where it was measured."""
    pairs = [(j, j.file, t) for j, t in zip(work.journals, work.tables, strict=True) if j.file is not None]
    if not pairs:
        return
    _, file, _ = pairs[0]
    foreign = tuple(dict.fromkeys(origin for _, each, _ in pairs for origin in each.foreign))
    measured = sum(journal.measured + table.measured for journal, _, table in pairs)
    report.latency_table = LatencyTableFacts(file.path.name, sum(j.taken for j, _, _ in pairs), measured, foreign)
    if foreign:
        report.notes.append(
            f"the latency table {file.path.name} was measured elsewhere too ({'; '.join(foreign)}): what was chosen "
            "follows it, what is certified was measured here"
        )


def reproduced(report: Report, work: Workspace, certificate: Certificate | None) -> bool:
    """Whether a result stands because the latency table says that it met the target, though it misses it here; says so
    in the report.
    """
    if certificate is None or report.latency_table is None or not certificate.accepts(work.options.goal):
        return False
    report.notes.append(
        f"warning: by the latency table this model meets the target, here the 95 % bound is "
        f"{certificate.bound_here(work.options.goal):.3f} of it"
    )
    return True


def model_facts(
    model: ir.Model,
    path: Path,
    inputs: Mapping[str, tuple[int, ...]],
    shown: str | None,
    canonical: ir.Model | None = None,
) -> ModelFacts:
    """Size facts of a model file; MACs at these input shapes.

    `canonical`: its canonical form, which is counted where the model has subgraphs: sizes inside of them come from
    inference alone, which follows no shape arithmetic.
    """
    digest = hashlib.sha256()
    total = 0
    for part in [path, *sorted(path.parent.glob(f"{path.name}.*.data"))]:
        with part.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                total += len(chunk)
    nodes = list(ir.all_nodes(model))
    counted = canonical if canonical is not None and any(map(ir.has_subgraph, nodes)) else model
    macs = ir.macs(counted, ir.shapes_for(counted, inputs))
    return ModelFacts(shown, digest.hexdigest(), len(nodes), ir.parameters(model), macs, total)


def limits(work: Workspace, accepts: Acceptance) -> dict[str, float]:
    """What the result may take and lose."""
    found = {each.kind: each.limit for each in resources(work)}
    losses = {"drift": accepts.max_drift, "drop": accepts.max_drop}
    return found | {name: value for name, value in losses.items() if value is not None}


def fill_baseline(report: Report, targets: Sequence[Target], certificate: Certificate) -> None:
    """The latency of the input model, before and after the lossless passes."""
    for target, comparison in zip(targets, certificate.comparisons, strict=True):
        report.baseline[target.alias] = latency_facts(comparison.arms[0])
        report.lossless[target.alias] = latency_facts(comparison.arms[1])


def fill_latency(report: Report, targets: Sequence[Target], certificate: Certificate) -> None:
    """All that was certified about one result."""
    fill_baseline(report, targets, certificate)
    for target, comparison in zip(targets, certificate.comparisons, strict=True):
        report.result[target.alias] = latency_facts(comparison.arms[2])
        report.speedup[target.alias] = speedup_facts(comparison.arms[2])


def front_facts(
    prepared: Prepared,
    path: Path,
    done: Finished,
    targets: Sequence[Target],
    certificate: Certificate,
    metric: float | None,
) -> FrontFacts:
    """One model of a front that is stored at `path`."""
    arms = {t.alias: comparison.arms[2] for t, comparison in zip(targets, certificate.comparisons, strict=True)}
    return FrontFacts(
        output=model_facts(done.compressed, path, prepared.input_shapes, None),
        latency={alias: latency_facts(arm) for alias, arm in arms.items()},
        speedup={alias: speedup_facts(arm) for alias, arm in arms.items()},
        drift=done.worst_drift,
        metric=metric,
        scheme=scheme_name(done.plan.scheme),
        widths=done.plan.widths,
        dropped_branches=done.dropped,
    )


def latency_facts(arm: Arm) -> LatencyFacts:
    """One measured arm of a comparison."""
    timing = arm.timing
    raw = tuple(float(f"{value:.9f}") for value in timing.raw)
    return LatencyFacts(timing.p50_ms, timing.p90_ms, timing.p99_ms, timing.p50_upper95_ms, len(raw), raw)


def speedup_facts(arm: Arm) -> SpeedupFacts:
    """The speedup of an arm over the baseline."""
    found = arm.speedup
    assert found is not None
    return SpeedupFacts(found.ratio, found.lower95, found.upper95, found.verdict)


def group_facts(graph: ChannelGraph, keep: Mapping[str, np.ndarray]) -> tuple[GroupFacts, ...]:
    """Every group with what left it."""
    facts = []
    for group in graph.groups:
        mask = keep.get(group.name)
        width = group.width if mask is None else int(np.count_nonzero(mask))
        slices = graph.removals({group.name: mask}) if mask is not None and width < group.width else {}
        removed = tuple(
            RemovedSlices(tensor, axis, tuple(int(i) for i in indices)) for (tensor, axis), indices in slices.items()
        )
        facts.append(GroupFacts(group.name, group.kind, group.width, width, removed))
    return tuple(facts)


def prediction_facts(pairs: Sequence[Pair]) -> PredictionFacts:
    """Predicted against real errors of the plans that were built."""
    listed = tuple((pair.predicted, pair.real, pair.how) for pair in pairs)
    return PredictionFacts(len(pairs), rank_correlation(pairs), listed)


def pass_facts(records: tuple[PassRecord, ...]) -> list[PassFacts]:
    """The passes of a pipeline."""
    return [
        PassFacts(r.name, r.modified, round(r.seconds, 4), r.kept, tuple(f"{s.node}: {s.reason}" for s in r.skips))
        for r in records
    ]


def peak_memory() -> int:
    """Largest resident set so far in bytes: of this process, or of its largest child."""
    scale = 1 if sys.platform == "darwin" else 1024
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(int(resource.getrusage(who).ru_maxrss) * scale for who in both)
