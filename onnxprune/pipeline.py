"""Passes and the contract that :class:`PassManager` alone enforces: clone, run, check, compare, keep or revert."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from onnxprune import ir
from onnxprune.errors import OnnxpruneError

if TYPE_CHECKING:
    from onnxprune.stats import Feeds

log = logging.getLogger(__name__)

Promise = Literal["exact", "tolerance", "lossy"]
Verify = Literal["none", "end", "each"]
T = TypeVar("T")


@dataclass(frozen=True)
class Skip:
    """Why a pass left a node alone. ``node`` is the node's key (its first output's name)."""

    node: str
    reason: str


@dataclass(frozen=True)
class PassResult:
    """What a pass did: whether the model changed, how often each rewrite applied, what it left alone and why."""

    modified: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    skips: tuple[Skip, ...] = ()

    @classmethod
    def of(cls, counts: Mapping[str, int], skips: Iterable[Skip] = ()) -> PassResult:
        """A result that is ``modified`` exactly when some rewrite applied."""
        kept = {name: count for name, count in counts.items() if count}
        return cls(bool(kept), kept, tuple(skips))


@dataclass
class PassContext:
    """What a pass may know beside the model.

    ``feeds``: real (or synthetic) inputs, used by data-driven passes and to verify. ``seed``: of every random choice.
    ``work_dir``: where reproducers of failed passes go. ``verify``: compare outputs never, once after the whole
    pipeline, or after each pass. ``samples``: how many samples are compared. ``tolerance``: largest relative output
    error of a pass that promises ``tolerance``, for float32 outputs. ``findings``: what analyses found out about the
    model as it is; PassManager holds them for one run and drops them whenever a pass modified the model. None: nothing
    is held.
    """

    feeds: Feeds | None = None
    seed: int = 0
    work_dir: Path | None = None
    verify: Verify = "end"
    samples: int = 4
    tolerance: float = 1e-5
    findings: dict[str, Any] | None = None

    def finding(self, name: str, find: Callable[[], T]) -> T:
        """Return what ``find`` returns, from the last time where the model is still the same. It knows no objects of
        the graph but by name, and nobody changes it.
        """
        if self.findings is None:
            return find()
        if name not in self.findings:
            self.findings[name] = find()
        found: T = self.findings[name]
        return found


@runtime_checkable
class Pass(Protocol):
    """A rewrite of a model. Implementations are frozen dataclasses whose fields are their options.

    A class variable ``in_subgraphs`` that is true lets the pass run on every subgraph as well: there it gets an
    :class:`onnxprune.ir.Body`, a model whose inputs are those of the subgraph and the outer tensors that it captures.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise]

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Change ``model`` in place. "Not applicable" is ``modified=False`` and a :class:`Skip`, never an exception."""
        ...


@dataclass(frozen=True)
class PassRecord:
    """One line of the report: what a pass did, how long it took (seconds), and whether its result was kept."""

    name: str
    modified: bool
    seconds: float
    kept: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    skips: tuple[Skip, ...] = ()
    error: str = ""


class PassManager:
    """Runs passes on a copy of a model and keeps only what holds its promise."""

    def run(self, model: ir.Model, passes: Sequence[Pass], ctx: PassContext) -> tuple[ir.Model, list[PassRecord]]:
        """Run ``passes`` in order on a copy of ``model``.

        Returns the new model and one record a pass. A pass whose result is not a valid model, or breaks its promise on
        ``ctx.feeds``, is reverted (``kept=False`` with the reason) and a reproducer is written to ``ctx.work_dir``.
        A pass that changed nothing does not run again on the same model. Errors of :mod:`onnxprune.errors` that a pass
        raises reach the caller.
        """
        ctx = replace(ctx, findings={})
        if ctx.verify == "each":
            return self._run_each(model, passes, ctx)
        current, records = model.copy(), []
        idle = _Idle()
        for item in passes:
            records.append(idle.record(item) or _apply(item, current, ctx))
            idle.add(item, records[-1])
        if ctx.verify == "none" or not any(record.modified for record in records):
            return current, records
        started = time.perf_counter()
        problem = _problem(model, current, _weakest(passes, records), ctx)
        log.debug("verified the pipeline in %.3f s", time.perf_counter() - started)
        if not problem:
            return current, records
        log.warning("the pipeline as a whole failed verification (%s); running it again pass by pass", problem)
        return self._run_each(model, passes, ctx)

    def _run_each(self, model: ir.Model, passes: Sequence[Pass], ctx: PassContext) -> tuple[ir.Model, list[PassRecord]]:
        ctx, idle = replace(ctx, findings={}), _Idle()
        current, records = model.copy(), []
        for item in passes:
            known = idle.record(item)
            if known is not None:
                records.append(known)
                continue
            candidate = current.copy()
            record = _apply(item, candidate, ctx)
            problem = _problem(current, candidate, item.promise, ctx) if record.modified and not record.error else ""
            if problem or record.error:
                record = _rejected(record, problem or record.error, current, item, ctx)
            elif record.modified:
                current = candidate
            idle.add(item, record)
            records.append(record)
        return current, records


class _Idle:
    """The passes that changed nothing on the model as it is, with their records."""

    def __init__(self) -> None:
        self._passes: list[tuple[Pass, PassRecord]] = []

    def add(self, item: Pass, record: PassRecord) -> None:
        if record.modified:
            self._passes.clear()
        elif not record.error:
            self._passes.append((item, record))

    def record(self, item: Pass) -> PassRecord | None:
        """The record of a pass that would change nothing again; None where that is not known."""
        found = next((record for other, record in self._passes if other == item), None)
        return None if found is None else replace(found, seconds=0.0)


def parse_pipeline(text: str) -> list[Pass]:
    """Build the passes named by text like ``constant-folding,prune{ratio=0.5}``; errors are UsageError."""
    from onnxprune import pipeline_text

    return pipeline_text.parse_pipeline(text)


def _apply(item: Pass, model: ir.Model, ctx: PassContext) -> PassRecord:
    started = time.perf_counter()
    result = item.run(model, ctx)
    if getattr(item, "in_subgraphs", False):
        result = _merged([result, *_run_in_subgraphs(item, model, replace(ctx, findings=None))])
    if result.modified and ctx.findings is not None:
        ctx.findings.clear()
    seconds = time.perf_counter() - started
    log.debug("%s: %s in %.3f s", item.name, dict(result.counts) or "nothing to do", seconds)
    return PassRecord(item.name, result.modified, seconds, True, dict(result.counts), result.skips)


def _run_in_subgraphs(item: Pass, model: ir.Model, ctx: PassContext) -> Iterator[PassResult]:
    """Runs a pass on every subgraph, as on a model whose inputs include what the subgraph captures."""
    found = ir.bodies(model)
    if found and not isinstance(model, ir.Body):
        ir.reserve_names(model)
    for body in found:
        yield item.run(body, ctx)
        yield from _run_in_subgraphs(item, body, ctx)


def _merged(results: Sequence[PassResult]) -> PassResult:
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    skips = tuple(skip for result in results for skip in result.skips)
    return PassResult(any(result.modified for result in results), counts, skips)


def _weakest(passes: Sequence[Pass], records: Sequence[PassRecord]) -> Promise:
    promises = {item.promise for item, record in zip(passes, records, strict=True) if record.modified}
    if "lossy" in promises:
        return "lossy"
    return "tolerance" if "tolerance" in promises else "exact"


def _problem(before: ir.Model, after: ir.Model, promise: Promise, ctx: PassContext) -> str:
    """Return why ``after`` may not replace ``before``; empty when it may."""
    from onnxprune import verification

    return verification.problem(before, after, promise, ctx)


def _rejected(record: PassRecord, problem: str, before: ir.Model, item: Pass, ctx: PassContext) -> PassRecord:
    log.warning("pass %s was reverted: %s", record.name, problem)
    if ctx.work_dir is not None:
        _write_reproducer(before, item, problem, ctx.work_dir)
    return PassRecord(record.name, False, record.seconds, False, record.counts, record.skips, problem)


def _write_reproducer(before: ir.Model, item: Pass, problem: str, folder: Path) -> None:
    """Write the model before the pass and the pipeline text that fails on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ir.save(before, folder / f"{item.name}.before.onnx", overwrite=True)
        (folder / f"{item.name}.txt").write_text(f"pipeline: {item!r}\nproblem: {problem}\n", encoding="utf-8")
    except (OSError, OnnxpruneError) as error:
        log.warning("the reproducer of %s could not be written: %s", item.name, error)
