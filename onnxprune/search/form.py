"""The form in which runtimes get every model of a search, where equal spellings take different times.

Analyses want one spelling; runtimes have fusions that fire for one and not for the other, for better or worse by
provider. So the lossless model is measured in both, once, and what is written from then on takes the faster one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from onnxprune.pipeline import PassContext, PassManager
from onnxprune.search.workspace import Workspace
from passes.sums_before_norms import SumsBeforeNorms
from runtime_bench import Bench
from runtime_bench.table_file import Look

FASTER = 0.99
"""Share of the canonical form's latency that another one may take at most, on every target."""


def choose_form(work: Workspace) -> None:
    """Lets everything be written with normalisations apart from the additions before them, where that is measured
    faster on every target.
    """
    form = SumsBeforeNorms()
    other, (record,) = PassManager().run(work.base, [form], PassContext(verify="none"))
    if not record.modified:
        return
    work.progress.stage("measuring", "additions apart from normalisations")
    joined, apart = work.file(work.base, "joined"), work.file(other, "apart")
    looks = [
        journal.look("form", [joined, apart], partial(_look, bench, joined, apart))
        for journal, bench in zip(work.journals, work.benches, strict=True)
    ]
    slowest = max(look["ratio"] for look in looks)
    if slowest >= FASTER:
        return
    work.spelling = (form,)
    work.notes.append(
        f"additions before normalisations are written as Sum, which ONNX Runtime does not fuse: {slowest:.3f}x"
    )
    work.progress.decide(work.notes[-1])


def _look(bench: Bench, joined: Path, apart: Path) -> Look:
    return {"ratio": bench.quick_ratio(joined, [apart])[0].ratio}
