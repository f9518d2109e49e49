"""What the child does for each command. The only part of the command line that imports the engine.

Every task takes a request of plain JSON data and gives back plain JSON data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxprune.progress import Progress

Request = Mapping[str, Any]


def compress(request: Request, progress: Progress) -> Any:
    """Compresses a model to a latency target; the result is the report. Raises what a best effort missed, once it is
    written.
    """
    from onnxprune import api, evaluation

    options = dict(request["options"])
    evaluate = evaluation.from_options(request["evaluate"])
    result = api.compress(request["model"], evaluate=evaluate, progress=progress, **options)
    if result.missed is not None:
        raise result.missed
    return result.report


def prune(request: Request, progress: Progress) -> Any:
    """Prunes a model without looking at latency; the result is the report."""
    from onnxprune import api

    return api.prune(request["model"], progress=progress, **request["options"]).report


def analyze(request: Request, progress: Progress) -> Any:
    """Finds the groups of coupled units; the result is what `onnxprune.cli.analyze` shows."""
    from onnxprune.cli import analysis

    return analysis.describe(request, progress)


def bench(request: Request, progress: Progress) -> Any:
    """Measures one model, or two against each other."""
    from onnxprune import api

    return api.benchmark(request["models"], progress=progress, **request["options"])


def compare(request: Request, progress: Progress) -> Any:
    """Compares the outputs of two models on the same data."""
    from onnxprune import api

    return api.compare(request["original"], request["compressed"], progress=progress, **request["options"])


def advise(request: Request, progress: Progress) -> Any:
    """Says what a compression would do, and why."""
    from onnxprune.advice import describe

    return describe(request, progress)
