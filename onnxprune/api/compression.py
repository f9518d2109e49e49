"""Compression to a latency target, whole: prepare, search, decide whether the result may be had, and report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnxprune import ir
from onnxprune.api import facts, unmet
from onnxprune.api.prediction import latency_model
from onnxprune.api.request import Request, targets
from onnxprune.errors import AccuracyError, OnnxpruneError, TargetNotMetError
from onnxprune.pipeline import PassContext, PassManager, parse_pipeline
from onnxprune.progress import Progress
from onnxprune.report import EvalFacts, Report
from onnxprune.search.acceptance import Acceptance
from onnxprune.search.certify import certify
from onnxprune.search.engine import search
from onnxprune.search.finish import Finished
from onnxprune.search.journal import Journal
from onnxprune.search.options import SearchOptions
from onnxprune.search.outcome import Outcome
from onnxprune.search.plan import Plan
from onnxprune.search.prepare import Prepared, prepare
from onnxprune.search.workspace import Workspace
from onnxprune.stats import model_drift
from passes.quantization import is_quantized
from runtime_bench import Bench, LatencyTable, Target
from runtime_bench.table_file import read_named

Made = tuple[Sequence[ir.Model], Report, OnnxpruneError | None]
_ADVICE = "ask for less, give more calibration data, or allow a larger loss"


def run(request: Request, folder: Path, progress: Progress) -> Made:
    """Compresses. Returns the models (none where nothing may be written), the report, and what was missed."""
    options = request.search_options()
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
    report = facts.new_report(prepared, request.asked([t.alias for t in made]), request.seed)
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
        work = _workspace(request, options, prepared, made, folder, progress, stack)
        if request.pipeline is not None:
            return _pipeline(request, prepared, work, report)
        if work.in_subgraphs:
            report.notes.append(
                f"{len(work.in_subgraphs)} groups inside subgraphs keep their widths: their latency cannot be measured "
                "apart; `onnxprune prune` can narrow them"
            )
            progress.decide(report.notes[-1])
        accepts = _acceptance(request, work, report)
        report.limits = facts.limits(work, accepts)
        return _conclude(request, prepared, work, search(work, accepts), report, accepts)


def _acceptance(request: Request, work: Workspace, report: Report) -> Acceptance:
    """What may be had: the user's own metric where there is one, else the drift."""
    if request.evaluate is None or report.eval is None:
        return Acceptance(request.drift_limit)
    evaluate = request.evaluate

    def metric(model: ir.Model) -> float:
        work.progress.stage("evaluating", "a compressed model")
        return _evaluated(evaluate, work.file(model, "evaluated"))

    return Acceptance(request.drift_limit, request.max_drop, metric, report.eval.before)


def _dump(request: Request, prepared: Prepared) -> None:
    if request.dump_canonical is not None:
        ir.save(prepared.base, Path(request.dump_canonical), overwrite=True)
    if request.dump_ir is not None:
        Path(request.dump_ir).write_text(ir.text(prepared.base), encoding="utf-8")


def _workspace(
    request: Request,
    options: SearchOptions,
    prepared: Prepared,
    made: Sequence[Target],
    folder: Path,
    progress: Progress,
    stack: contextlib.ExitStack,
) -> Workspace:
    work = Workspace.of(
        prepared,
        options,
        granularity=request.granularity,
        freeze=request.freeze,
        folder=folder,
        progress=progress,
    )
    arrays = work.held.measured()
    benches = [stack.enter_context(Bench(target, arrays, seed=request.seed)) for target in made]
    tables = [LatencyTable(bench, cache_dir=request.cache_dir, file=request.latency_table) for bench in benches]
    files = [table.file if request.latency_table is not None else None for table in tables]
    journals = [Journal(target, file) for target, file in zip(made, files, strict=True)]
    return replace(work, benches=benches, tables=tables, journals=journals)


def _conclude(
    request: Request, prepared: Prepared, work: Workspace, outcome: Outcome, report: Report, accepts: Acceptance
) -> Made:
    report.search = work.rounds
    report.notes.extend(work.notes)
    facts.fill_latency_table(report, work)
    report.peak_memory_bytes = facts.peak_memory()
    report.met = outcome.met
    if outcome.floor is not None:
        report.floor = {target.alias: ratio for target, ratio in zip(work.targets, outcome.floor, strict=True)}
    if outcome.landing:
        report.notes.append(outcome.landing)
    if request.pareto is not None and request.pipeline is None:
        return _front(prepared, work, outcome, report, accepts)
    if outcome.finished is None:
        return [], report, unmet.error(work, outcome)
    facts.fill_result(report, prepared, work, outcome.finished)
    report.latency_model = latency_model(work.rounds, report.scheme)
    if outcome.certificate is not None:
        facts.fill_latency(report, work.targets, outcome.certificate)
    if report.eval is not None:
        report.eval = replace(report.eval, after=accepts.metric(outcome.finished))
    error: OnnxpruneError | None = None
    refusal = accepts.refusal(outcome.finished)
    if refusal is not None:
        error = AccuracyError(f"{refusal}; {_ADVICE}")
    elif not outcome.met and not facts.reproduced(report, work, outcome.certificate):
        error = unmet.error(work, outcome)
    keep = error is None or (request.best_effort and isinstance(error, TargetNotMetError))
    if error is not None:
        report.met = False
    return [work.written(outcome.finished.compressed)] if keep else [], report, error


def _front(prepared: Prepared, work: Workspace, outcome: Outcome, report: Report, accepts: Acceptance) -> Made:
    for finished, certificate in outcome.front:
        path = work.file(finished.compressed, "output")
        report.front.append(
            facts.front_facts(prepared, path, finished, work.targets, certificate, accepts.metric(finished))
        )
    if outcome.front:
        facts.fill_baseline(report, work.targets, outcome.front[0][1])
        return [work.written(finished.compressed) for finished, _ in outcome.front], report, None
    return [], report, TargetNotMetError("no model within the limits is certified to be faster than the input model")


def _evaluated(evaluate: Callable[[Any], float], path: Path) -> float:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return float(evaluate(session))


def _pipeline(request: Request, prepared: Prepared, work: Workspace, report: Report) -> Made:
    """Runs exactly the passes that the user wrote, and measures what they give."""
    assert request.pipeline is not None
    context = PassContext(feeds=work.feeds, seed=request.seed)
    model, records = PassManager().run(work.base, parse_pipeline(request.pipeline), context)
    report.passes.extend(facts.pass_facts(tuple(records)))
    done = Finished(Plan(), model, model, {}, {}, model_drift(work.base, model, work.held), None)
    certificate = certify(work, work.file(model, "pipeline"))
    met = certificate.met(work.options.goal) if request.target_latency else True
    outcome = Outcome(met, done, certificate, None, (certificate.comparisons[0].baseline.timing.p50_ms * 1e-3,))
    return _conclude(request, prepared, work, outcome, report, _acceptance(request, work, report))
