"""What stays the same during one search: the model, its channel graph, the data, and how latency is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from onnxprune import ir
from onnxprune.channels import ChannelGraph, analyze
from onnxprune.pipeline import Pass, PassContext, PassManager
from onnxprune.progress import Progress
from onnxprune.search.journal import Journal
from onnxprune.search.options import SearchOptions
from onnxprune.search.prediction import Pair
from onnxprune.search.prepare import Prepared, split
from onnxprune.stats import Feeds, Statistics, collect
from onnxprune.stats.reference import Reference, bounded
from passes.block_removal import Branch, branches
from passes.quantization.host import saturates
from passes.structured_pruning import recurrent
from passes.structured_pruning.splice import runs, spliced
from runtime_bench import Bench, LatencyTable, Target, compare
from runtime_bench.table_file import Look


@dataclass
class Workspace:
    """One search. `original` is the file that the user gave, `base` the canonical model, `feeds` what the search sees,
    `held` what it does not.
    """

    original: Path
    base: ir.Model
    graph: ChannelGraph
    branches: Sequence[Branch]
    feeds: Feeds
    held: Feeds
    shapes: Mapping[str, tuple[int, ...]]
    options: SearchOptions
    progress: Progress
    folder: Path
    benches: Sequence[Bench] = ()
    tables: Sequence[LatencyTable] = ()
    journals: Sequence[Journal] = ()
    rounds: list[Mapping[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """for the report"""
    predictions: list[Pair] = field(default_factory=list)
    bias: tuple[float, ...] = ()
    """what fresh processes measure over what quick looks do, a value a target"""
    spelling: tuple[Pass, ...] = ()
    """passes that every model goes through when it is written: what is measured faster in another form"""

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        options: SearchOptions,
        *,
        granularity: str,
        freeze: str | None,
        folder: Path,
        progress: Progress,
    ) -> Workspace:
        """The workspace of a prepared model; without benches, so nothing can be measured on it yet."""
        progress.stage("analysing")
        feeds, held = split(prepared.feeds, options.seed)
        return cls(
            original=prepared.path,
            base=prepared.base,
            graph=analyze(prepared.base, granularity=granularity, freeze=freeze),
            branches=branches(prepared.base, prepared.shapes),
            feeds=feeds,
            held=held,
            shapes=prepared.shapes,
            options=options,
            progress=progress,
            folder=folder,
        )

    @cached_property
    def base_file(self) -> Path:
        """The canonical model as a file: what lossless passes alone give."""
        return self.file(self.base, "lossless")

    def __post_init__(self) -> None:
        self.bias = self.bias or (1.0,) * len(self.benches)
        self.journals = self.journals or tuple(Journal(bench.target) for bench in self.benches)

    @cached_property
    def in_subgraphs(self) -> frozenset[str]:
        """Names of the groups whose weights live in the bodies of If, Loop or Scan."""
        inside = ir.body_names(self.base)
        return frozenset(group.name for group in self.graph.groups if group.producers[0][0] in inside)

    @cached_property
    def fitting(self) -> Feeds:
        """The samples that weights are fitted on: what fits into memory, and no more than pays."""
        return bounded(self.base, self.feeds).spread(self.options.effort.fitting_samples)

    @cached_property
    def open_base(self) -> ir.Model:
        """The base model as statistics see it: with the parts of branches that hold groups at the top level."""
        if not self.in_subgraphs:
            return self.base
        model = spliced(self.base, self._named)
        return model if runs(model, self.fitting) else self.base

    def opened(self, model: ir.Model) -> ir.Model:
        """A candidate in the form of `open_base`; the candidate itself where that is the base model."""
        return model if self.open_base is self.base else spliced(model, self._named)

    @cached_property
    def unseen(self) -> frozenset[str]:
        """Names of the groups without statistics: their weights alone rank them, and nothing makes up for them."""
        inside = ir.body_names(self.open_base)
        return self.in_subgraphs & frozenset(
            group.name for group in self.graph.groups if group.producers[0][0] in inside
        )

    @cached_property
    def fitting_base(self) -> ir.Model:
        """`open_base` as compensation sees it: with the input products of recurrent layers in the open."""
        return recurrent.opened(self.open_base)

    def fitting_form(self, model: ir.Model) -> ir.Model:
        """A candidate in the form of `fitting_base`; the candidate itself where that is the base model."""
        return recurrent.opened(self.opened(model))

    @property
    def _named(self) -> set[str]:
        return {tensor for name in self.in_subgraphs for tensor, _ in self.graph.group(name).owner}

    @cached_property
    def statistics(self) -> Statistics:
        """Moments of the columns of every contraction of the base model."""
        self.progress.stage("collecting statistics", f"{len(self.fitting)} samples")
        return collect(self.fitting_base, self.fitting, seed=self.options.seed)

    @cached_property
    def reference(self) -> Reference:
        """Dense activations that compensation aims at, shared by all candidates."""
        return Reference(self.fitting_base, self.fitting)

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(bench.target for bench in self.benches)

    @cached_property
    def seven_bits(self) -> bool:
        """Whether 8-bit weights keep to 7 bits: as this machine needs it, or the one that a named table comes from."""
        look = self.journals[0].look("weight-bits", [], lambda: {"bits": 7.0 if saturates() else 8.0})
        return look["bits"] < 8

    def probe_feeds(self) -> Feeds:
        """The few samples that error probes run on: of those that nothing is fitted to, since with few samples what was
        fitted to them says little (MobileNet at 0.9x of the MACs, 224 samples: 0.012 predicted, 0.90 real).
        """
        return self.held.spread(self.options.effort.probe_samples)

    def cut_off(self) -> None:
        """Notes that the clock ended an integer programme."""
        text = "the clock ended an integer programme: another run may choose another plan"
        if text not in self.notes:
            self.notes.append(text)
            self.progress.decide(text)

    def written(self, model: ir.Model) -> ir.Model:
        """A model in the form that runtimes get; the model itself where that is the canonical one."""
        return PassManager().run(model, self.spelling, PassContext(verify="none"))[0] if self.spelling else model

    def file(self, model: ir.Model, stem: str) -> Path:
        """Writes a candidate where benches read it."""
        path = self.folder / f"{stem}.onnx"
        ir.save(self.written(model), path, overwrite=True)
        return path

    def looks(self, candidate: Path, seconds: float = 0.8) -> list[Look]:
        """A quick look at a candidate on every target: its latency over the original's (`ratio`), and the original's
        P50 in seconds (`baseline_s`).
        """

        def measure(bench: Bench) -> Look:
            found = bench.quick_ratio(self.original, [candidate], seconds=seconds)[0]
            return {"ratio": found.ratio, "baseline_s": found.baseline_p50_s}

        return [
            journal.look("quick", [self.original, candidate], partial(measure, bench))
            for journal, bench in zip(self.journals, self.benches, strict=True)
        ]

    def ratios(self, candidate: Path, seconds: float = 0.8) -> tuple[float, ...]:
        """A quick look at a candidate: its latency over the original's, a value a target."""
        return tuple(look["ratio"] for look in self.looks(candidate, seconds))

    def fresh_ratios(self, candidate: Path) -> list[tuple[float, float]]:
        """The ratio and its upper bound from a few launches of fresh processes, a pair a target."""
        feeds = self.feeds.measured()

        def measure(target: Target) -> Look:
            speedup = compare([self.original, candidate], target, feeds, launches=4, blocks=5, max_seconds=8).speedup()
            return {"ratio": speedup.ratio, "upper95": speedup.upper95}

        looks = [
            journal.look("fresh", [self.original, candidate], partial(measure, journal.target))
            for journal in self.journals
        ]
        return [(look["ratio"], look["upper95"]) for look in looks]
