"""`onnxprune compare`: how far the outputs of a compressed model are from the original's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import params, tables
from onnxprune.cli.job import Job


@click.command(short_help="Compare the outputs of two models.")
@click.argument("original", type=params.FILE)
@click.argument("compressed", type=params.FILE)
@params.calibration
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@params.seed
@params.running
def compare(original: Path, compressed: Path, form: str, **given: Any) -> int:
    """Compares the outputs of ORIGINAL and COMPRESSED on the same inputs."""
    job = Job("compare", given)
    job.reads(model=original, compressed_model=compressed, calibration=given["calib_data"])
    with job:
        options = job.shared_options()
        result = job.run({"original": str(original), "compressed": str(compressed), "options": options})
    if form == "json":
        tables.write_json(result)
    else:
        tables.show(tables.drift_rows(result))
    return 0
