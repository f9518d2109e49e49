"""`onnxprune prune`: structured pruning by a ratio, to a share of the MACs, or by a specification. No latency, no
quantization.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune import ir
from onnxprune.api import facts, specification
from onnxprune.api.analysis import largest_cause
from onnxprune.channels import Group
from onnxprune.errors import OnnxpruneError, TargetNotMetError, UsageError
from onnxprune.progress import Progress
from onnxprune.report import Report, TargetFacts
from onnxprune.search.budget import for_macs
from onnxprune.search.effort import effort
from onnxprune.search.finalists import Contender, best_finished
from onnxprune.search.options import SearchOptions
from onnxprune.search.plan import Plan
from onnxprune.search.prepare import prepare
from onnxprune.search.workspace import Workspace
from onnxprune.units import Target
from passes.structured_pruning.levels import build_levels, keep_mask

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
    effort: str = "normal"
    seed: int = 0


def run(request: Request, progress: Progress) -> tuple[ir.Model | None, Report, OnnxpruneError | None]:
    """Prunes. Returns the model (None where there is nothing to write), the report, and the error that ends it."""
    _check(request)
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
    report = facts.new_report(prepared, _asked(request), request.seed)
    if prepared.feeds.synthetic and request.ratio != 0:
        report.notes.append("no calibration data: synthetic inputs were used, so criteria and compensation fit those")
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        work = Workspace.of(
            prepared,
            _options(request),
            granularity=request.granularity,
            freeze=request.freeze,
            folder=Path(folder),
            progress=progress,
        )
        try:
            contenders = _chosen(request, work)
        except TargetNotMetError as error:
            return None, report, error
        done = best_finished(work, contenders)
        keep = done.keep
        if work.in_subgraphs & keep.keys():
            report.notes.append("some groups are inside subgraphs: drift counts only the branches that the data take")
        unseen = work.unseen & keep.keys()
        if unseen:
            report.notes.append(
                f"{len(unseen)} groups inside subgraphs are ranked by their weights and not compensated: "
                "their activations cannot be recorded"
            )
        facts.fill_result(report, prepared, work, done)
    report.met = request.macs is None or (report.macs_ratio or 1.0) <= request.macs * 1.005
    if report.met:
        return done.compressed, report, None
    reason = f"{request.macs:g}x of the MACs cannot be reached: {report.macs_ratio:.3f}x is the least"
    return None, report, TargetNotMetError(reason)


def _check(request: Request) -> None:
    if sum(value is not None for value in (request.ratio, request.macs, request.spec)) != 1:
        raise UsageError("give exactly one of ratio, macs and spec")
    if request.ratio is not None and not 0 <= request.ratio < 1:
        raise UsageError(f"the ratio is the fraction to remove, from 0 to under 1, not {request.ratio:g}")
    if request.macs is not None and not 0 < request.macs < 1:
        raise UsageError(f"macs is the fraction to be left, between 0 and 1, not {request.macs:g}")


def _asked(request: Request) -> TargetFacts:
    if request.spec is not None:
        return TargetFacts("spec", 0.0, ())
    if request.macs is not None:
        return TargetFacts("macs", request.macs, ())
    return TargetFacts("prune-ratio", request.ratio or 0.0, ())


def _options(request: Request) -> SearchOptions:
    return SearchOptions(
        Target("", ratio=1.0),
        drop_branches=request.drop_branches,
        criterion=request.criterion,
        without=frozenset() if request.compensate else frozenset({"compensation"}),
        effort=effort(request.effort),
        seed=request.seed,
    )


def _chosen(request: Request, work: Workspace) -> list[Contender]:
    """The plans worth finishing; TargetNotMetError where they would leave everything as it is."""
    if request.ratio == 0:
        return [Contender(Plan(), {})]
    if not work.graph.groups and not (request.macs is not None and work.branches and request.drop_branches):
        cause = largest_cause(work.graph.shares(work.base, work.shapes))
        raise TargetNotMetError(f"nothing in this model can be pruned: {cause}; onnxprune analyze says more")
    if request.macs is not None:
        few = max(1, work.options.effort.finalists // 2)  # rehearsals have ranked them
        return for_macs(work, request.macs)[:few]
    keep = _from_ratio(request, work) if request.spec is None else _from_spec(request.spec, work)
    if not keep:
        raise TargetNotMetError("every group would keep all its units; remove more")
    return [Contender(Plan({name: int(np.count_nonzero(mask)) for name, mask in keep.items()}), keep)]


def _from_ratio(request: Request, work: Workspace) -> Keep:
    assert request.ratio is not None
    work.progress.stage("ranking units", request.criterion)
    widths = {group.name: _narrowed_width(group, request.ratio) for group in work.graph.groups}
    return _masks(work, {name: width for name, width in widths.items() if width < work.graph.group(name).width})


def _masks(work: Workspace, widths: Mapping[str, int]) -> Keep:
    """The units that the criterion keeps at these widths."""
    if not widths:
        return {}
    curves = build_levels(work.open_base, work.graph, work.feeds, work.options.criterion, work.options.seed)
    return {name: keep_mask(curves[name], width) for name, width in widths.items()}


def _narrowed_width(group: Group, ratio: float) -> int:
    """Units that stay when `ratio` of them leave, on the group's own multiple."""
    step = group.multiple_of
    width = round(group.width * (1 - ratio) / step) * step
    return min(group.width, max(width, group.min_keep, step))


def _from_spec(spec: str | Path | Mapping[str, Any], work: Workspace) -> Keep:
    """The masks of a specification; where it gives a width, the criterion chooses the units."""
    found = specification.read(spec, work.graph)
    masks = found.masks | _masks(work, found.widths)
    return {name: mask for name, mask in masks.items() if not mask.all()}
