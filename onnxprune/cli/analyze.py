"""`onnxprune analyze`: what can be pruned, what cannot, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import params, tables
from onnxprune.cli.job import Job
from onnxprune.errors import UsageError


@click.command(short_help="Show what can be pruned, what cannot, and why.")
@click.argument("model", type=params.FILE)
@click.option("--groups", "view", flag_value="groups", default="groups", help="Show the groups of units. The default.")
@click.option("--rules", "view", flag_value="rules", help="Show the rule of every node.")
@click.option("--why", metavar="TENSOR:AXIS", help="Show why one axis can or cannot be pruned.")
@click.option("--dot", type=params.FILE, metavar="FILE.dot", help="Draw the groups as a graph in the DOT language.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@params.freeze
@params.granularity
@params.canonical
@params.input_shape
@params.overwrite
@params.running
def analyze(model: Path, view: str, why: str | None, dot: Path | None, form: str, **given: Any) -> int:
    """Shows the groups of coupled units that can be removed from MODEL, and what is frozen for which reason."""
    if dot is not None and view == "rules" and not why:
        raise UsageError("--dot draws the groups; leave out --rules")
    request = {"model": str(model), "view": "why" if why else view, "axis": _axis(why) if why else None}
    job = Job("analyze", given)
    job.reads(model=model)
    job.writes(drawing=dot)
    with job:
        options = {**job.shared_options(), "input_shapes": {name: list(shape) for name, shape in given["input_shapes"]}}
        result = job.run({**request, "dot": job.staged(dot), "options": options})
    if form == "json":
        tables.write_json(result)
    else:
        tables.show_analysis(result)
    return 0


def _axis(why: str) -> list[Any]:
    tensor, colon, axis = why.rpartition(":")
    if not colon or not tensor or not axis.isdecimal():
        raise UsageError(f"--why {why!r} is not TENSOR:AXIS; write it like conv1.weight:0")
    return [tensor, int(axis)]
