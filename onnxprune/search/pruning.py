"""`onnxprune prune`: structured pruning by a ratio, to a share of the MACs, or by a specification. No latency, no
quantization.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune import channels, ir
from onnxprune.channels import Group
from onnxprune.errors import DataError, OnnxpruneError, TargetNotMetError, UsageError
from onnxprune.progress import Progress
from onnxprune.report import DriftFacts, Report, TargetFacts
from onnxprune.search import facts
from onnxprune.search.compression import DRIFT_METRIC
from onnxprune.search.finish import Finished, finish
from onnxprune.search.options import SearchOptions
from onnxprune.search.plan import Plan
from onnxprune.search.prepare import Prepared, prepare, split
from onnxprune.search.workspace import Workspace
from onnxprune.units import Target
from passes.block_removal import branches
from passes.structured_pruning.levels import build_levels, keep_mask
from runtime_bench import versions
from runtime_bench.host import host

Keep = dict[str, np.ndarray]


@dataclass(frozen=True)
class Request:
    """What `onnxprune prune` asks for; exactly one of ratio, macs and spec."""

    path: Path
    calib_data: Any = None
    ratio: float | None = None
    macs: float | None = None
    spec: str | Path | Mapping[str, Any] | None = None
    criterion: str = "obs"
    compensate: bool = True
    drop_branches: bool = False
    freeze: str | None = None
    granularity: str = "head"
    freeze_initializers: bool = False
    keep_batchnorm: bool = False
    seed: int = 0


def run(request: Request, progress: Progress) -> tuple[ir.Model | None, Report, OnnxpruneError | None]:
    """Prunes. Returns the model (None where there is nothing to write), the report, and the error the run ends with."""
    if sum(value is not None for value in (request.ratio, request.macs, request.spec)) != 1:
        raise UsageError("give exactly one of ratio, macs and spec")
    prepared = prepare(
        request.path,
        calib_data=request.calib_data,
        batch=1,
        input_shapes={},
        freeze_initializers=request.freeze_initializers,
        keep_batchnorm=request.keep_batchnorm,
        seed=request.seed,
        progress=progress,
    )
    report = _report(request, prepared)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        work = _workspace(request, prepared, Path(folder), progress)
        if request.ratio == 0:
            return _fill(prepared, work, finish(work, Plan(), {}), report), report, None
        plan, keep = _chosen(request, work)
        if not keep and not plan.dropped:
            reason = "nothing in this model can be pruned; onnxprune analyze says why"
            return None, report, TargetNotMetError(reason)
        model = _fill(prepared, work, finish(work, plan, keep), report)
    error: OnnxpruneError | None = None
    if request.macs is not None:
        report.met = (report.macs_ratio or 1.0) <= request.macs * 1.005
        if not report.met:
            error = TargetNotMetError(
                f"{request.macs:g}x of the MACs cannot be reached: {report.macs_ratio:.3f}x is the least"
            )
    return (None if error else model), report, error


def _report(request: Request, prepared: Prepared) -> Report:
    kind, value = ("macs", request.macs) if request.macs is not None else ("prune-ratio", request.ratio)
    notes = []
    if prepared.feeds.synthetic and request.ratio != 0:
        notes.append("no calibration data: synthetic inputs were used, so criteria and compensation fit those")
    return Report(
        model=facts.model_facts(prepared.source, request.path, prepared.input_shapes, str(request.path)),
        target=TargetFacts(kind if value is not None else "spec", float(value or 0.0), ()),
        seed=request.seed,
        host=host(),
        versions=versions(),
        met=True,
        passes=facts.pass_facts(prepared.records),
        notes=notes,
    )


def _workspace(request: Request, prepared: Prepared, folder: Path, progress: Progress) -> Workspace:
    feeds, held = split(prepared.feeds, request.seed)
    progress.stage("analysing")
    return Workspace(
        original=request.path,
        base=prepared.base,
        base_file=request.path,
        graph=channels.analyze(prepared.base, granularity=request.granularity, freeze=request.freeze),
        branches=branches(prepared.base, prepared.shapes),
        feeds=feeds,
        held=held,
        shapes=prepared.shapes,
        options=SearchOptions(
            Target("", ratio=1.0),
            drop_branches=request.drop_branches,
            criterion=request.criterion,
            compensate=request.compensate,
            seed=request.seed,
        ),
        progress=progress,
        folder=folder,
    )


def _chosen(request: Request, work: Workspace) -> tuple[Plan, Keep]:
    if request.spec is not None:
        keep = _from_spec(request.spec, work)
        return Plan({name: int(mask.sum()) for name, mask in keep.items()}), keep
    if request.macs is not None:
        from onnxprune.search.budget import for_macs

        return for_macs(work, request.macs)
    assert request.ratio is not None
    work.progress.stage("ranking units", request.criterion)
    curves = build_levels(work.base, work.graph, work.feeds, request.criterion, request.seed)
    widths = {group.name: _narrowed_width(group, request.ratio) for group in work.graph.groups}
    widths = {name: width for name, width in widths.items() if width < work.graph.group(name).width}
    return Plan(widths), {name: keep_mask(curves[name], width) for name, width in widths.items()}


def _narrowed_width(group: Group, ratio: float) -> int:
    """Units that stay when `ratio` of them leave, on the group's own multiple."""
    step = group.multiple_of
    width = round(group.width * (1 - ratio) / step) * step
    return min(group.width, max(width, group.min_keep, step))


def _from_spec(spec: str | Path | Mapping[str, Any], work: Workspace) -> Keep:
    """Masks of a specification: {group name: width | [indices of units that stay]}, or that under the key "keep"."""
    if not isinstance(spec, Mapping):
        try:
            spec = json.loads(Path(spec).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"specification {spec} is not JSON: {error}") from None
    if isinstance(spec, Mapping) and isinstance(spec.get("keep"), Mapping):
        spec = spec["keep"]
    if not isinstance(spec, Mapping):
        raise DataError('a specification is {"group name": width or [units that stay]}')
    curves: Mapping[str, Any] | None = None
    keep: Keep = {}
    for name, wanted in spec.items():
        group = work.graph.group(name)
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            if not group.min_keep <= wanted <= group.width:
                raise DataError(f"{name}: a width must be {group.min_keep} to {group.width}, not {wanted}")
            curves = curves or build_levels(
                work.base, work.graph, work.feeds, work.options.criterion, work.options.seed
            )
            keep[name] = keep_mask(curves[name], wanted)
        else:
            keep[name] = _mask(group, wanted)
    return {name: mask for name, mask in keep.items() if not mask.all()}


def _mask(group: Group, units: Any) -> np.ndarray:
    inside = isinstance(units, list) and all(
        isinstance(u, int) and not isinstance(u, bool) and 0 <= u < group.width for u in units
    )
    if not inside or len(set(units)) < group.min_keep:
        raise DataError(
            f"{group.name}: give a width or a list of at least {group.min_keep} units between 0 and {group.width - 1}"
        )
    mask = np.zeros(group.width, bool)
    mask[units] = True
    return mask


def _fill(prepared: Prepared, work: Workspace, done: Finished, report: Report) -> ir.Model:
    path = work.file(done.compressed, "output")
    report.output = facts.model_facts(done.compressed, path, prepared.input_shapes, None)
    report.macs_ratio = report.output.macs / max(report.model.macs, 1)
    report.params_ratio = report.output.params / max(report.model.params, 1)
    report.groups = facts.group_facts(work.graph, done.keep)
    report.dropped_branches = done.plan.dropped
    worst = done.worst_drift
    report.drift = DriftFacts(DRIFT_METRIC, worst, dict(done.drift), bool(prepared.feeds.synthetic))
    if done.oracle is not None:
        report.oracle = {"ok": done.oracle.ok, "error": done.oracle.error}
    report.met = True
    report.peak_memory_bytes = facts.peak_memory()
    return done.compressed
