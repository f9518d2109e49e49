"""`onnxprune prune`: structured pruning alone, without latency and without quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import params
from onnxprune.cli.job import Job
from onnxprune.errors import UsageError

CRITERIA = ["obs", "magnitude-l1", "magnitude-l2", "bn-scale", "wanda", "geometric-median", "random"]


@click.command(short_help="Prune without looking at latency.")
@click.argument("model", type=params.FILE)
@params.output
@click.option("--ratio", type=params.SHARE, metavar="0.3", help="Fraction of units to remove.")
@click.option("--macs", type=params.RATIO, metavar="0.6x", help="Fraction of the MACs to be left.")
@click.option("--spec", type=params.FILE, metavar="KEEP.json", help="Exactly which units stay, by group.")
@click.option("--criterion", type=click.Choice(CRITERIA), default="obs", show_default=True, help="What ranks units.")
@click.option("--no-compensate", is_flag=True, help="Do not re-fit the weights that are left.")
@click.option("--drop-branches", is_flag=True, help="Also remove whole residual branches.")
@params.calibration
@params.effort
@params.freeze
@params.granularity
@params.canonical
@params.report
@params.seed
@params.overwrite
@params.running
def prune(**given: Any) -> int:
    """Prunes MODEL by a ratio, to a share of its MACs, or by a specification."""
    amounts = [name for name in ("ratio", "macs", "spec") if given[name] is not None]
    if len(amounts) != 1:
        raise UsageError("give exactly one of --ratio, --macs and --spec")
    model: Path = given["model"]
    output = given["output"] or Path(f"{model.stem}.onnxprune.onnx")
    job = Job("prune", given)
    job.reads(model=model, calibration=given["calib_data"], specification=given["spec"])
    job.writes(output=output, report=given["report"])
    with job:
        options = {
            **job.shared_options(),
            "ratio": given["ratio"],
            "macs": given["macs"],
            "spec": None if given["spec"] is None else str(given["spec"]),
            "criterion": given["criterion"],
            "compensate": not given["no_compensate"],
            "drop_branches": given["drop_branches"],
            "effort": given["effort"],
            "output": job.staged(output),
        }
        report = job.run({"model": str(model), "options": options})
    job.show_result(report)
    return 0
