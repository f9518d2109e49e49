"""`onnxprune advise`: the plan in words, before anything is compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import advice_text, params, tables
from onnxprune.cli.job import Job


@click.command(short_help="Say what would be tried, why, what it costs, and what cannot be had.")
@click.argument("model", type=params.FILE)
@click.option("--target-latency", type=params.TARGET, metavar="5ms|0.5x", help="The target that is thought of.")
@params.calibration
@params.measuring
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@params.freeze
@params.granularity
@params.canonical
@params.running
def advise(model: Path, form: str, **given: Any) -> int:
    """Looks at MODEL, this machine and the data for some seconds, and says what a compression would do and why."""
    target = given["target_latency"]
    job = Job("advise", given)
    job.reads(model=model, calibration=given["calib_data"])
    with job:
        options = {**job.shared_options(), "target_latency": None if target is None else target.text}
        result = job.run({"model": str(model), "options": options})
    if form == "json":
        tables.write_json(result)
    else:
        advice_text.show(result, str(model))
    return 0
