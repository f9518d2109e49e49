"""`onnxprune MODEL --target-latency ...`: the command without a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import params
from onnxprune.cli.job import Job
from onnxprune.cli.paths import check_input
from onnxprune.errors import UsageError
from onnxprune.units import numbered


@click.command("", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("model", type=params.FILE)
@params.output
@click.option("--target-latency", type=params.TARGET, metavar="5ms|0.5x", help="What to reach: a P50, or a ratio.")
@click.option("--target-size", type=params.SIZE, metavar="2MB|0.5x", help="Largest size of the model's files.")
@click.option("--target-macs", type=params.MACS, metavar="100M|0.5x", help="Most multiply-accumulates.")
@params.calibration
@params.measuring
@click.option("--eval", "eval_function", metavar="FILE.py:FUNC", help="FUNC(session) -> float, higher is better.")
@click.option("--eval-data", type=params.FILE, metavar="NPZ", help="Inputs and labels to evaluate on instead.")
@click.option("--labels", metavar="KEY", help="Name of the labels in --eval-data.")
@click.option("--metric", type=click.Choice(["top1", "top5", "pearson"]), help="Metric for --eval-data, in percent.")
@click.option(
    "--max-drop", type=params.NUMBER, metavar="D", help="Largest loss of the metric; alone: go as fast as it allows."
)
@click.option(
    "--max-drift",
    type=params.NUMBER,
    metavar="D",
    help="Largest relative output error; alone: go as fast as it allows.",
)
@click.option("--pareto", type=click.IntRange(min=2), metavar="N", help="N models from little loss to low latency.")
@click.option(
    "--precision",
    type=params.PRECISION_LIST,
    metavar="LIST",
    help="Precisions to choose from, such as fp32,int8. Default: fp32,fp16,int8.",
)
@click.option("--no-drop-branches", is_flag=True, help="Never remove whole residual branches.")
@params.effort
@params.freeze
@params.granularity
@click.option("--pipeline", metavar="PASSES", help="Run exactly these passes: 'a,b{option=value}'.")
@click.option("--best-effort", is_flag=True, help="Write the best model also where the target is not met.")
@params.canonical
@params.report
@click.option("--html", type=params.FILE, metavar="FILE.html", help="Write the report as one HTML page.")
@click.option("--dump-canonical", type=params.FILE, metavar="FILE", help="Write the canonical model.")
@click.option("--dump-ir", type=params.FILE, metavar="FILE", help="Write the canonical model as text.")
@click.option("--config", type=params.FILE, metavar="FILE.toml", help="Options as TOML; the command line wins.")
@click.option("--cache-dir", type=params.FILE, metavar="DIR", help="Latency tables. Default: the user's cache folder.")
@click.option(
    "--latency-table", type=params.FILE, metavar="FILE",
    help="Take every measurement from this file, and add to it what it lacks: the same file gives the same model.",
)  # fmt: skip
@params.seed
@click.option("--dry-run", is_flag=True, help="Do everything, but write no model.")
@params.overwrite
@params.running
@click.pass_context
def compress(ctx: click.Context, /, **given: Any) -> int:
    """Compresses MODEL until it is measured to meet the target."""
    if given["config"] is not None:
        given = _with_config(ctx, given)
    return _run(given)


def _with_config(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options with those that the configuration file sets and the command line does not."""
    from onnxprune.cli.config import load

    known = {parameter.name: parameter for parameter in compress.params if isinstance(parameter, click.Option)}
    for name, value in load(given["config"], known, ctx).items():
        if ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
            given[name] = value
    return given


def _run(given: dict[str, Any]) -> int:
    model: Path = given["model"]
    check_input(model, "model")
    _check_goal(given)
    output = given["output"] or Path(f"{model.stem}.onnxprune.onnx")
    count = given["pareto"] or 0
    job = Job("compress", given)
    job.reads(
        model=model, calibration=given["calib_data"], evaluation=given["eval_data"], configuration=given["config"]
    )
    job.writes(
        output=None if given["dry_run"] or count else output,
        report=given["report"],
        **{
            "HTML report": given["html"],
            "canonical model": given["dump_canonical"],
            "text form": given["dump_ir"],
        },
    )
    job.writes_front([] if given["dry_run"] else [numbered(output, number) for number in range(1, count + 1)])
    job.extends(latency_table=given["latency_table"])
    evaluate = _evaluation(given)
    with job:
        report = job.run({"model": str(model), "evaluate": evaluate, "options": _options(given, job, output)})
    job.show_result(report)
    return 0


def _check_goal(given: dict[str, Any]) -> None:
    """Raises UsageError where nothing is asked for, or what excludes each other."""
    targets = [f"--target-{kind}" for kind in ("latency", "size", "macs") if given[f"target_{kind}"] is not None]
    searched = [*targets[1 if given["target_latency"] else 0 :], *(["--pareto"] if given["pareto"] else [])]
    if given["pipeline"] is not None and searched:
        raise UsageError(f"--pipeline and {searched[0]} exclude each other; give one of them")
    if given["pareto"] is not None and targets:
        raise UsageError(f"--pareto and {targets[0]} exclude each other; give one of them")
    limited = given["max_drop"] is not None or given["max_drift"] is not None
    if not targets and not limited and given["pareto"] is None and given["pipeline"] is None:
        raise UsageError("no target: add --target-latency, such as 5ms or 0.5x, --target-size, --max-drift or --pareto")
    if given["best_effort"] and not targets and given["pipeline"] is None:
        raise UsageError("--best-effort does nothing without a target that can be missed; leave it out")


def _options(given: dict[str, Any], job: Job, output: Path) -> dict[str, Any]:
    """Returns the keyword arguments of `api.compress`, as JSON."""
    targets = {name: given[name] for name in ("target_latency", "target_size", "target_macs")}
    return {
        **job.shared_options(),
        "output": None if given["dry_run"] else job.staged(output),
        **{name: None if target is None else target.text for name, target in targets.items()},
        "pareto": given["pareto"],
        "max_drop": given["max_drop"],
        "max_drift": given["max_drift"],
        "precision": given["precision"],
        "drop_branches": not given["no_drop_branches"],
        "effort": given["effort"],
        "pipeline": given["pipeline"],
        "best_effort": given["best_effort"],
        "html": job.staged(given["html"]),
        "dump_canonical": job.staged(given["dump_canonical"]),
        "dump_ir": job.staged(given["dump_ir"]),
        "cache_dir": None if given["cache_dir"] is None else str(given["cache_dir"]),
        "latency_table": None if given["latency_table"] is None else str(given["latency_table"]),
    }


def _evaluation(given: dict[str, Any]) -> dict[str, Any] | None:
    """Returns how to evaluate, checked as far as it can be without running anything."""
    data = {"--labels": given["labels"], "--metric": given["metric"]}
    if given["eval_function"] is not None:
        if given["eval_data"] is not None:
            raise UsageError("--eval and --eval-data exclude each other; give one of them")
        path, _, name = given["eval_function"].rpartition(":")
        if not path or not name:
            raise UsageError(f"--eval {given['eval_function']!r} is not FILE.py:FUNC")
        check_input(Path(path), "evaluation script")
        return {"script": path, "function": name}
    if given["eval_data"] is not None:
        missing = [option for option, value in data.items() if value is None]
        if missing:
            raise UsageError(f"--eval-data needs {' and '.join(missing)} too")
        return {"data": str(given["eval_data"]), "labels": given["labels"], "metric": given["metric"]}
    alone = [option for option, value in data.items() if value is not None]
    if alone:
        raise UsageError(f"{alone[0]} does nothing without --eval-data; add it")
    if given["max_drop"] is not None:
        raise UsageError("--max-drop needs a metric: add --eval or --eval-data")
    return None
