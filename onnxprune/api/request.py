"""What a compression asks for, checked, and the targets that it measures on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.cores import physical_cores
from onnxprune.errors import UsageError
from onnxprune.report import TargetFacts
from onnxprune.search.effort import effort
from onnxprune.search.options import FASTER, PRECISIONS, SearchOptions
from onnxprune.units import parse_macs, parse_size, parse_target
from runtime_bench import Target

REFUSE_DRIFT = 0.5
_ABSOLUTE = {"size": "bytes", "macs": "macs-count"}


@dataclass(frozen=True)
class Request:
    """What `onnxprune MODEL --target-...` asks for; field names are option names. `without`: ingredients of the
    search to switch off, to see what they are worth (`onnxprune.search.options.INGREDIENTS`); no option has it.
    """

    path: Path
    target_latency: str | None = None
    target_size: str | None = None
    target_macs: str | None = None
    pareto: int | None = None
    calib_data: Any = None
    eps: tuple[str, ...] = ("cpu",)
    ep_options: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    batch: int | None = None
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    evaluate: Callable[[Any], float] | None = None
    max_drop: float | None = None
    max_drift: float | None = None
    precision: Sequence[str] | None = None
    drop_branches: bool = True
    freeze: str | None = None
    granularity: str = "head"
    pipeline: str | None = None
    best_effort: bool = False
    freeze_initializers: bool = False
    keep_batchnorm: bool = False
    dump_canonical: str | Path | None = None
    dump_ir: str | Path | None = None
    cache_dir: str | Path | None = None
    latency_table: str | Path | None = None
    criterion: str = "obs"
    effort: str = "normal"
    without: Collection[str] = ()
    seed: int = 0

    @property
    def drift_limit(self) -> float | None:
        """The drift above which a result is refused; the user's own metric takes its place where there is one."""
        return REFUSE_DRIFT if self.max_drift is None and self.evaluate is None else self.max_drift

    def check(self) -> None:
        """Raises UsageError where nothing is asked for, or what excludes each other."""
        asked = [name for name in ("target_latency", "target_size", "target_macs") if getattr(self, name) is not None]
        limited = self.max_drift is not None or self.max_drop is not None
        if not asked and self.pareto is None and not limited:
            raise UsageError(
                "no target: give target_latency (5ms, 0.5x), target_size, target_macs, max_drift or pareto"
            )
        if self.pareto is not None and asked:
            raise UsageError(f"pareto and {asked[0]} exclude each other; give one of them")
        if self.pareto is not None and self.pareto < 2:
            raise UsageError(f"pareto needs at least 2 models, not {self.pareto}")
        if self.max_drop is not None and self.evaluate is None:
            raise UsageError("max_drop needs a metric: give evaluate")
        if self.best_effort and not asked:
            raise UsageError("best_effort does nothing without a target that can be missed; leave it out")

    def search_options(self) -> SearchOptions:
        """The part that the search sees; of a pipeline, which needs none, the target that its result is compared with.

        Raises UsageError where nothing is asked for, what excludes each other, or what does not exist.
        """
        goal = parse_target(self.target_latency) if self.target_latency else FASTER
        if self.pipeline is not None:
            if any(value is not None for value in (self.target_size, self.target_macs, self.pareto)):
                raise UsageError("a pipeline says itself what to do: target_size, target_macs and pareto need a search")
            return SearchOptions(goal, seed=self.seed)
        self.check()
        precisions = tuple(self.precision or PRECISIONS)
        wrong = [name for name in precisions if name not in PRECISIONS]
        if wrong:
            raise UsageError(f"unknown precision {wrong[0]!r}; choose among {', '.join(PRECISIONS)}")
        return SearchOptions(
            goal=goal,
            size=parse_size(self.target_size) if self.target_size else None,
            macs=parse_macs(self.target_macs) if self.target_macs else None,
            front=self.pareto or 0,
            precisions=precisions,
            drop_branches=self.drop_branches,
            criterion=self.criterion,
            max_drift=self.drift_limit,
            seed=self.seed,
            effort=effort(self.effort),
            without=frozenset(self.without),
            best_effort=self.best_effort,
        )

    def asked(self, eps: Sequence[str]) -> TargetFacts:
        """What decides, in the order of what a user would call the target."""
        if self.target_latency is not None:
            goal = parse_target(self.target_latency)
            return TargetFacts(goal.kind, goal.value, tuple(eps))
        for kind, text, parse in (("size", self.target_size, parse_size), ("macs", self.target_macs, parse_macs)):
            if text is not None:
                amount = parse(text)
                return TargetFacts(kind if amount.amount is None else _ABSOLUTE[kind], amount.value, tuple(eps))
        for kind, value in (("front", self.pareto), ("drop", self.max_drop), ("drift", self.max_drift)):
            if value is not None and self.pipeline is None:
                return TargetFacts(kind, value, tuple(eps))
        return TargetFacts("none", 0.0, tuple(eps))


def targets(
    eps: Sequence[str],
    threads: int | None,
    batch: int | None,
    shapes: Mapping[str, tuple[int, ...]],
    options: Mapping[str, str],
) -> list[Target]:
    """One target an EP, all at the same shapes and threads."""
    count = threads or physical_cores()
    return [
        Target(ep, options=tuple(options.items()), threads=count, batch=batch or 1, shapes=tuple(shapes.items()))
        for ep in eps
    ]
