"""`onnxprune bench`: the latency of one model, or a verdict on which of two is faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import params, tables
from onnxprune.cli.job import Job


@click.command(short_help="Measure one model, or two against each other.")
@click.argument("model", type=params.FILE)
@click.argument("other", type=params.FILE, required=False)
@params.measuring
@params.calibration
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@params.seed
@params.running
def bench(model: Path, other: Path | None, form: str, **given: Any) -> int:
    """Measures MODEL in fresh processes, and OTHER against it where it is given."""
    job = Job("bench", given)
    job.reads(model=model, other_model=other, calibration=given["calib_data"])
    models = [str(path) for path in (model, other) if path is not None]
    with job:
        result = job.run({"models": models, "options": job.shared_options()})
    if form == "json":
        tables.write_json(result)
    else:
        tables.show(tables.bench_rows(result))
    return 0
