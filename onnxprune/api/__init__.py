"""The Python API: the same engine that the command line runs.

    result = onnxprune.compress("model.onnx", target_latency="0.5x", calib_data=arrays)
    result.model            # onnx.ModelProto
    result.report["met"]    # the report as plain data

Every function raises the errors of `onnxprune.errors`; one that ends a run (target not met, accuracy) carries the
report as `error.report`. The engine is imported where it is used: `analyze` needs none of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxprune import ir
from onnxprune.api.analysis import analyze, rules
from onnxprune.canonical import canonicalize
from onnxprune.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from onnxprune.errors import OnnxpruneError
    from onnxprune.report import Report

__all__ = ["Result", "analyze", "benchmark", "canonicalize", "compare", "compress", "prune", "rules"]

ModelLike = str | Path | onnx.ModelProto
Data = str | Path | Mapping[str, np.ndarray] | None
Evaluate = Callable[[Any], float]


@dataclass(frozen=True)
class Result:
    """A compressed model and its report (see docs/report.md). `models`: all models of a front, the slowest first;
    `model` is the last of them. `missed`: why the target was not met, where the best effort was asked for.
    """

    model: onnx.ModelProto
    report: dict[str, Any]
    models: tuple[onnx.ModelProto, ...] = ()
    missed: OnnxpruneError | None = None


def compress(
    model: ModelLike,
    *,
    target_latency: str | None = None,
    calib_data: Data = None,
    eps: Sequence[str] = ("cpu",),
    evaluate: Evaluate | None = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    html: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Compresses a model to a measured latency target, to a size, to so many multiply-accumulates, to the lowest
    latency within a limit of loss, or to a family of models along the front of latency and loss.

    target_latency: "5ms", "800us", or "0.5x" of the input model's P50; target_size: "2MB" or "0.5x"; target_macs:
    "100M" or "0.5x"; max_drift or max_drop alone: the lowest latency; pareto: how many models, written as `STEM-1.onnx`
    and so on. calib_data: typical inputs, as arrays by input name, an .npz or a folder. evaluate: FUNC(session) ->
    float, higher is better. options: the fields of `onnxprune.api.request.Request`, named like the options of the
    command line (threads, batch, input_shapes, precision, drop_branches, max_drift, max_drop, effort, seed,
    best_effort, without, ...). output, report (JSON) and html are files to write.

    Raises TargetNotMetError with the floor that was measured, AccuracyError, ModelError, DataError, ProviderError.
    """
    from onnxprune.api import compression
    from onnxprune.api.request import Request
    from onnxprune.search.prepare import stored

    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        request = Request(
            path=stored(model, Path(folder)),
            target_latency=target_latency,
            calib_data=calib_data,
            eps=tuple(eps),
            evaluate=evaluate,
            **options,
        )
        return _run(lambda told: compression.run(request, Path(folder), told), output, report, progress, html)


def prune(
    model: ModelLike,
    *,
    calib_data: Data = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Prunes by `ratio` (fraction removed of every group), to `macs` (fraction left), or by `spec` (a JSON file or
    mapping of what stays).

    No latency, no quantization. options: the fields of `onnxprune.api.pruning.Request`.
    """
    from onnxprune.api import pruning
    from onnxprune.search.prepare import stored

    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        request = pruning.Request(path=stored(model, Path(folder)), calib_data=calib_data, **options)

        def made(told: Progress) -> tuple[list[ir.Model], Report, OnnxpruneError | None]:
            found, facts, error = pruning.run(request, told)
            return [found] if found is not None else [], facts, error

        return _run(made, output, report, progress)


def _run(
    work: Callable[[Progress], tuple[Sequence[ir.Model], Report, OnnxpruneError | None]],
    output: str | Path | None,
    report: str | Path | None,
    progress: Progress | None,
    html: str | Path | None = None,
) -> Result:
    """Runs, writes the reports first and the models last, and raises what a run without a model ended with."""
    from onnxprune import report_html
    from onnxprune.search.stopwatch import Stopwatch
    from onnxprune.units import numbered

    told = Stopwatch(progress or SilentProgress())
    models, facts, error = work(told)
    facts.seconds, facts.stages = round(told.seconds, 3), told.stages
    if report is not None:
        Path(report).write_text(facts.to_json(), encoding="utf-8")
    plain = facts.to_dict()
    if html is not None:
        Path(html).write_text(report_html.render(plain), encoding="utf-8")
    if output is not None:
        for number, model in enumerate(models, 1):
            ir.save(model, numbered(Path(output), number) if facts.front else Path(output), overwrite=True)
    if error is not None:
        error.report = plain  # type: ignore[attr-defined]
        if not models:
            raise error
    protos = tuple(ir.to_proto(model) for model in models)
    return Result(protos[-1], plain, protos, error)


def benchmark(
    models: Sequence[ModelLike],
    *,
    eps: Sequence[str] = ("cpu",),
    threads: int | None = None,
    batch: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    ep_options: Mapping[str, str] | None = None,
    calib_data: Data = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures models on every EP, interleaved and in fresh processes; the first is the baseline of every speedup."""
    from onnxprune.api.request import targets
    from onnxprune.search.prepare import concrete_inputs, load_feeds, stored
    from runtime_bench import bench

    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        paths = [stored(model, Path(folder) / str(index)) for index, model in enumerate(models)]
        first = ir.load(paths[0])
        feeds = load_feeds(calib_data, first, seed, input_shapes or {})
        shapes = concrete_inputs(first, feeds, batch or 1, input_shapes or {})
        chosen = targets(eps, threads, batch, shapes, ep_options or {})
        told = progress or SilentProgress()
        result = bench(
            [str(path) for path in paths],
            chosen,
            feeds.measured(),
            seed=seed,
            progress=lambda share, text: told.stage("measuring", f"{share:.0%} {text}"),
        )
    plain = result.to_json()
    plain["measurements"] = [
        {
            "model": str(name) if isinstance(name, str | Path) else f"model {index + 1}",
            "ep": target.alias,
            **arm.to_json()["timing"],
            "speedup": arm.to_json()["speedup"],
        }
        for target, comparison in zip(chosen, result.comparisons, strict=True)
        for index, (name, arm) in enumerate(zip(models, comparison.arms, strict=True))
    ]
    return plain


def compare(
    original: ModelLike,
    compressed: ModelLike,
    *,
    calib_data: Data = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Drift of every output of `compressed` from `original`'s on the same inputs (see docs/report.md)."""
    from onnxprune.search.prepare import load_feeds, stored
    from onnxprune.stats import model_drift

    (progress or SilentProgress()).stage("comparing outputs")
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        first, second = (
            ir.load(stored(model, Path(folder) / name)) for model, name in ((original, "a"), (compressed, "b"))
        )
        feeds = load_feeds(calib_data, first, seed, {})
        outputs = model_drift(first, second, feeds)
    return {
        "metric": "relative output error",
        "outputs": outputs,
        "value": max(outputs.values(), default=0.0),
        "synthetic_data": feeds.synthetic,
    }
