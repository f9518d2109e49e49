"""Compression to a latency target, whole: prepare, search, decide whether the result may be had, and report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnxprune import ir
from onnxprune.api import facts
from onnxprune.api.analysis import largest_cause
from onnxprune.api.prediction import latency_model
from onnxprune.errors import AccuracyError, OnnxpruneError, TargetNotMetError, UsageError
from onnxprune.pipeline import PassContext, PassManager, parse_pipeline
from onnxprune.progress import Progress
from onnxprune.report import EvalFacts, Report, TargetFacts
from onnxprune.search.certify import Certificate, certify
from onnxprune.search.effort import effort
from onnxprune.search.engine import Outcome, search
from onnxprune.search.finish import Finished
from onnxprune.search.journal import Journal
from onnxprune.search.options import PRECISIONS, SearchOptions
from onnxprune.search.plan import Plan
from onnxprune.search.prepare import Prepared, prepare
from onnxprune.search.workspace import Workspace
from onnxprune.stats import model_drift
from onnxprune.units import parse_target
from passes.quantization import is_quantized
from runtime_bench import Bench, LatencyTable, Target
from runtime_bench.table_file import read_named

REFUSE_DRIFT = 0.5


@dataclass(frozen=True)
class Request:
    """What `onnxprune MODEL --target-latency ...` asks for; field names are option names. `without`: ingredients of the
    search to switch off, to see what they are worth (`onnxprune.search.options.INGREDIENTS`); no option has it.
    """

    path: Path
    target_latency: str | None = None
    calib_data: Any = None
    eps: tuple[str, ...] = ("cpu",)
    ep_options: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    batch: int | None = None
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    evaluate: Callable[[Any], float] | None = None
    max_drop: float | None = None
    max_drift: float | None = None
    precision: Sequence[str] | None = None
    drop_branches: bool = True
    freeze: str | None = None
    granularity: str = "head"
    pipeline: str | None = None
    best_effort: bool = False
    freeze_initializers: bool = False
    keep_batchnorm: bool = False
    dump_canonical: str | Path | None = None
    dump_ir: str | Path | None = None
    cache_dir: str | Path | None = None
    latency_table: str | Path | None = None
    criterion: str = "obs"
    effort: str = "normal"
    without: Collection[str] = ()
    seed: int = 0

    @property
    def drift_limit(self) -> float | None:
        """The drift above which a result is refused; the user's own metric takes its place where there is one."""
        return REFUSE_DRIFT if self.max_drift is None and self.evaluate is None else self.max_drift

    def search_options(self) -> SearchOptions:
        """The part that the search sees."""
        if self.target_latency is None:
            raise UsageError("no target: give target_latency, such as 5ms or 0.5x")
        precisions = tuple(self.precision or PRECISIONS)
        wrong = [name for name in precisions if name not in PRECISIONS]
        if wrong:
            raise UsageError(f"unknown precision {wrong[0]!r}; choose among {', '.join(PRECISIONS)}")
        return SearchOptions(
            goal=parse_target(self.target_latency),
            precisions=precisions,
            drop_branches=self.drop_branches,
            criterion=self.criterion,
            max_drift=self.drift_limit,
            seed=self.seed,
            effort=effort(self.effort),
            without=frozenset(self.without),
            best_effort=self.best_effort,
        )


def targets(
    eps: Sequence[str],
    threads: int | None,
    batch: int | None,
    shapes: Mapping[str, tuple[int, ...]],
    options: Mapping[str, str],
) -> list[Target]:
    """One target an EP, all at the same shapes and threads."""
    count = threads or physical_cores(os.cpu_count() or 1)
    return [
        Target(ep, options=tuple(options.items()), threads=count, batch=batch or 1, shapes=tuple(shapes.items()))
        for ep in dict.fromkeys(eps)
    ]


def physical_cores(logical: int) -> int:
    """Cores that this process may use, siblings of one core counted once where the system says so."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    try:
        cores = set()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/core_cpus_list"):
            cores.add(path.read_text())
        return max(1, min(usable, len(cores) or usable))
    except OSError:
        return usable


def run(request: Request, folder: Path, progress: Progress) -> tuple[ir.Model | None, Report, OnnxpruneError | None]:
    """Compresses. Returns the model (None where it must not be written), the report, and the error that ends it."""
    if request.pipeline is None:
        request.search_options()
    if request.latency_table is not None:  # a wrong file must not cost a search
        read_named(Path(request.latency_table))
    made = targets(request.eps, request.threads, request.batch, {}, request.ep_options)
    prepared = prepare(
        request.path,
        calib_data=request.calib_data,
        batch=request.batch or 1,
        input_shapes=request.input_shapes,
        freeze_initializers=request.freeze_initializers,
        keep_batchnorm=request.keep_batchnorm,
        seed=request.seed,
        progress=progress,
    )
    made = [replace(target, shapes=tuple(prepared.input_shapes.items())) for target in made]
    _dump(request, prepared)
    goal = parse_target(request.target_latency) if request.target_latency else None
    asked = TargetFacts(goal.kind if goal else "none", goal.value if goal else 0.0, tuple(t.alias for t in made))
    report = facts.new_report(prepared, asked, request.seed)
    if prepared.feeds.synthetic:
        report.notes.append("no calibration data: synthetic inputs were used, so drift says little about real data")
        progress.decide(report.notes[-1])
    if is_quantized(prepared.base):
        report.notes.append("the model is quantized already: only widths and branches are searched")
        progress.decide(report.notes[-1])
    if request.evaluate is not None:  # first: an evaluation that fails must not cost a whole search
        progress.stage("evaluating", "the input model")
        name = getattr(request.evaluate, "__name__", "evaluation")
        report.eval = EvalFacts(name, _evaluated(request.evaluate, request.path))
    with contextlib.ExitStack() as stack:
        work = _workspace(request, prepared, made, folder, progress, stack)
        if request.pipeline is not None:
            return _pipeline(request, prepared, work, report)
        if work.in_subgraphs:
            report.notes.append(
                f"{len(work.in_subgraphs)} groups inside subgraphs keep their widths: their latency cannot be measured "
                "apart; `onnxprune prune` can narrow them"
            )
            progress.decide(report.notes[-1])
        outcome = search(work)
        return _conclude(request, prepared, work, outcome, report)


def _dump(request: Request, prepared: Prepared) -> None:
    if request.dump_canonical is not None:
        ir.save(prepared.base, Path(request.dump_canonical), overwrite=True)
    if request.dump_ir is not None:
        Path(request.dump_ir).write_text(ir.text(prepared.base), encoding="utf-8")


def _workspace(
    request: Request,
    prepared: Prepared,
    made: Sequence[Target],
    folder: Path,
    progress: Progress,
    stack: contextlib.ExitStack,
) -> Workspace:
    options = replace(request, target_latency=request.target_latency or "0.99x").search_options()
    work = Workspace.of(
        prepared,
        options,
        granularity=request.granularity,
        freeze=request.freeze,
        folder=folder,
        progress=progress,
    )
    arrays = work.held.take(range(min(len(work.held), 8))).arrays
    benches = [stack.enter_context(Bench(target, arrays, seed=request.seed)) for target in made]
    tables = [LatencyTable(bench, cache_dir=request.cache_dir, file=request.latency_table) for bench in benches]
    files = [table.file if request.latency_table is not None else None for table in tables]
    journals = [Journal(target, file) for target, file in zip(made, files, strict=True)]
    return replace(work, benches=benches, tables=tables, journals=journals)


def _conclude(
    request: Request, prepared: Prepared, work: Workspace, outcome: Outcome, report: Report
) -> tuple[ir.Model | None, Report, OnnxpruneError | None]:
    report.search = work.rounds
    report.notes.extend(work.notes)
    facts.fill_latency_table(report, work)
    report.peak_memory_bytes = facts.peak_memory()
    report.met = outcome.met
    if outcome.floor is not None:
        report.floor = {target.alias: ratio for target, ratio in zip(work.targets, outcome.floor, strict=True)}
    if outcome.landing:
        report.notes.append(outcome.landing)
    if outcome.finished is None:
        return None, report, _not_met(work, outcome)
    path = facts.fill_result(report, prepared, work, outcome.finished)
    report.latency_model = latency_model(work.rounds, report.scheme)
    if outcome.certificate is not None:
        _fill_latency(report, work.targets, outcome.certificate)
    error = _gate(request, work, outcome.finished, path, report)
    if error is None and not outcome.met and not facts.reproduced(report, work, outcome.certificate):
        error = _not_met(work, outcome)
    keep = error is None or (request.best_effort and isinstance(error, TargetNotMetError))
    if error is not None:
        report.met = False
    return (outcome.finished.compressed if keep else None), report, (None if keep else error)


def _fill_latency(report: Report, targets: Sequence[Target], certificate: Certificate) -> None:
    for target, comparison in zip(targets, certificate.comparisons, strict=True):
        report.baseline[target.alias] = facts.latency_facts(comparison.arms[0])
        report.lossless[target.alias] = facts.latency_facts(comparison.arms[1])
        report.result[target.alias] = facts.latency_facts(comparison.arms[2])
        report.speedup[target.alias] = facts.speedup_facts(comparison.arms[2])


def _gate(request: Request, work: Workspace, done: Finished, path: Path, report: Report) -> OnnxpruneError | None:
    """The accuracy gate: the user's metric where there is one, else the drift."""
    if request.evaluate is not None and report.eval is not None:
        work.progress.stage("evaluating", "the compressed model")
        before, after = report.eval.before, _evaluated(request.evaluate, path)
        report.eval = replace(report.eval, after=after)
        if request.max_drop is not None and before - after > request.max_drop:
            return AccuracyError(
                f"the metric falls from {before:.4g} to {after:.4g}, more than --max-drop {request.max_drop:g}; "
                "ask for a higher latency, or allow a larger drop"
            )
    limit = request.drift_limit
    if limit is not None and not done.worst_drift <= limit:
        return AccuracyError(
            f"the outputs drift by {done.worst_drift:.3f}, more than {limit:g}; ask for a higher latency, "
            "give more calibration data, or raise --max-drift"
        )
    return None


def _evaluated(evaluate: Callable[[Any], float], path: Path) -> float:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return float(evaluate(session))


def _not_met(work: Workspace, outcome: Outcome) -> TargetNotMetError:
    goal = work.options.goal
    if outcome.floor is not None:
        ratio, seconds = max(zip(outcome.floor, outcome.baseline_s, strict=True))
        floor = f"the lowest latency measured is {ratio:.3f}x of the input model ({ratio * seconds * 1e3:.3g} ms)"
        why = ""
        if not work.graph.groups and not work.branches:
            why = f"nothing in this model can be pruned: {largest_cause(work.graph.shares(work.base, work.shapes))}; "
        return TargetNotMetError(f"the target {goal.text} cannot be met: {why}{floor}{_pinned(work.base)}")
    assert outcome.certificate is not None
    share = outcome.certificate.bound_here(goal)
    return TargetNotMetError(
        f"the target {goal.text} was not certified: the 95 % bound of the latency is {share:.3f} of it; "
        "try again on a quieter machine, or ask for a little more"
    )


def _pinned(model: ir.Model) -> str:
    """The hint for models whose weights are inputs with default values, which nothing may change."""
    count = len(model.graph.inputs) - len(ir.feed_inputs(model))
    return f"; {count} weights are graph inputs: --freeze-initializers makes them constants" if count else ""


def _pipeline(
    request: Request, prepared: Prepared, work: Workspace, report: Report
) -> tuple[ir.Model | None, Report, OnnxpruneError | None]:
    """Runs exactly the passes that the user wrote, and measures what they give."""
    assert request.pipeline is not None
    context = PassContext(feeds=work.feeds, seed=request.seed)
    model, records = PassManager().run(work.base, parse_pipeline(request.pipeline), context)
    report.passes.extend(facts.pass_facts(tuple(records)))
    done = Finished(Plan(), model, model, {}, {}, model_drift(work.base, model, work.held), None)
    certificate = certify(work, work.file(model, "pipeline"))
    met = certificate.met(work.options.goal) if request.target_latency else True
    outcome = Outcome(met, done, certificate, None, (certificate.comparisons[0].baseline.timing.p50_ms * 1e-3,))
    return _conclude(request, prepared, work, outcome, report)
