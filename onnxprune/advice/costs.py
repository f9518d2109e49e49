"""How long a compression will take, stage by stage: a table of formulas in what a stage does how often.

The constants were fitted to the `stages` of reports of real runs in CPU seconds on one thread (docs/advise.md has the
runs and the errors), so the estimate is one of a machine that does nothing else. It is a range: only the search finds
out how many rounds, schemes and drops it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxprune.advice.facts import Facts
from onnxprune.advice.rules import met_already
from onnxprune.search.depth import samples_of_a_look
from onnxprune.search.effort import Effort
from onnxprune.search.prepare import HELD_OUT, MOST_HELD
from passes.refinement.refine import LARGEST_BATCH, RUNS_A_USE, STEPS_AN_EPOCH

LOW, HIGH = 0.6, 1.7
"""Factors on every formula, from below to above what the runs took."""
_LOOK = 1.8  # seconds of a quick look: workers started, warmed up and run in turns
_ROWS = 50  # rows of activations that statistics keep for each column
_BEHIND = 0.35  # part of the network that a look at a dropped branch runs
_MOMENT = 7e-11  # seconds for one product of two activations in a Gram matrix
_RUNS = 5  # runs of the model that a sample and its gradients take


@dataclass(frozen=True)
class Work:
    """What there is to do. run: seconds of one sample as latency is measured; sample: without its padding; fitted,
    looked, probed: samples that weights are fitted on for good and for a look, and that a probe runs; moments: products
    that Gram matrices sum; looks, errors: measurements of latency and of drift that the choice of precision takes;
    prices: tables that are made; ahead: branches that are looked at again after each drop; rehearsals, finished: plans
    that are fitted for a look, and for good, at most; seen: samples that all weights are refined on together, repeated
    ones too; slow: seconds that a look at a slow model takes longer.
    """

    run: float
    sample: float
    samples: int
    fitted: int
    looked: int
    probed: int
    nodes: int
    groups: int
    branches: int
    contractions: int
    moments: float
    targets: int
    looks: int
    errors: int
    prices: int
    ahead: int
    rounds: int
    rehearsals: int
    finished: int
    seen: float

    @property
    def slow(self) -> float:
        return 30 * self.run

    @property
    def finishing(self) -> float:
        """How many plans are finished: between one and all that may be."""
        return (1 + self.finished) / 2

    @property
    def gram(self) -> float:
        return _MOMENT * self.moments


@dataclass(frozen=True)
class Stage:
    """A stage as reports name it, whether there is anything to do in it, and its seconds."""

    name: str
    when: Callable[[Work], bool]
    seconds: Callable[[Work], float]


@dataclass(frozen=True)
class Estimate:
    """Seconds of a stage, from `low` to `high`."""

    stage: str
    low: float
    high: float


def _always(work: Work) -> bool:
    return True


def _searched(work: Work) -> bool:
    return work.groups + work.branches > 0


STAGES = (
    Stage("preparing", _always, lambda w: 0.8 + 0.012 * w.nodes),
    Stage("measuring", _always, lambda w: w.targets * (2.0 + w.slow)),
    Stage(
        "choosing precision",
        lambda w: w.looks > 0,
        lambda w: w.targets * w.looks * (_LOOK + w.slow) + w.errors * (2.0 + 200 * w.sample),
    ),
    Stage("collecting statistics", _searched, lambda w: w.fitted * w.sample + 0.03 * w.contractions + w.gram),
    Stage(
        "ranking branches",
        lambda w: w.branches > 0,
        lambda w: (1 + 2 / 3 * w.ahead) * w.branches * (0.2 + _BEHIND * (w.looked + w.probed) * w.sample),
    ),
    Stage("probing levels", lambda w: w.groups > 0, lambda w: 2 * w.groups * (0.02 + w.probed * w.sample)),
    Stage("pricing levels", _searched, lambda w: w.targets * w.prices * 0.3 * w.contractions),
    Stage(
        "rehearsing",
        lambda w: w.branches > 0 and w.rehearsals > 1,
        lambda w: min(w.rehearsals, 6) * (0.15 * w.contractions + (w.looked + w.probed) * w.sample),
    ),
    Stage("refining", _searched, lambda w: w.targets * w.rounds * (2.2 + w.slow)),
    Stage("confirming", _searched, lambda w: w.targets * (17.0 + 4 * w.slow)),
    Stage("compensating", _searched, lambda w: w.finishing * (0.6 * w.contractions + 2 * w.fitted * w.sample + w.gram)),
    Stage("refining weights", _searched, lambda w: _RUNS * w.seen * w.sample),
    Stage("proving", _searched, lambda w: 0.5 + 0.2 * w.samples * w.sample),
    Stage("certifying", _always, lambda w: w.targets * (20.0 + 10 * w.slow)),
)


def estimates(facts: Facts, effort: Effort) -> Sequence[Estimate]:
    """Seconds of every stage that there is something to do in."""
    work = work_of(facts, effort)
    return [
        Estimate(stage.name, LOW * seconds, HIGH * seconds)
        for stage in STAGES
        if stage.when(work)
        for seconds in (stage.seconds(work),)
    ]


def work_of(facts: Facts, effort: Effort) -> Work:
    """What a compression of this model will have to do."""
    graph, pruning = facts.graph, facts.pruning
    samples = facts.data.samples
    searched = max(samples - int(min(HELD_OUT * samples, MOST_HELD)), 1)
    fitted = min(searched, effort.fitting_samples)
    batch = max((shape[0] for shape in graph.inputs.values() if shape), default=1)
    done = met_already(facts)
    schemes = 0 if done or graph.quantized else 1 + 2 * (graph.int8 > 0) + (graph.dynamic > 0) + graph.heavy
    worth = schemes if facts.host.fast_int8 else 0
    return Work(
        run=facts.latency.seconds / max(batch, 1),
        sample=facts.data.real * facts.latency.seconds / max(batch, 1),
        samples=samples,
        fitted=fitted,
        looked=samples_of_a_look(fitted, facts.data.real * graph.macs / max(batch, 1)),
        probed=min(max(samples - searched, 1), effort.probe_samples),
        nodes=graph.nodes,
        groups=0 if done else pruning.usable,
        branches=0 if done else pruning.branches,
        contractions=len(pruning.products),
        moments=sum(p.groups * p.columns**2 * min(_ROWS * p.columns, fitted * p.positions) for p in pruning.products),
        targets=len(facts.host.eps),
        looks=schemes + 2 * (schemes > 1),
        errors=worth,
        prices=1 + (worth > 0),
        ahead=effort.look_ahead,
        rounds=effort.rounds,
        rehearsals=effort.rehearsals,
        finished=effort.finalists if worth else 1,
        seen=_seen(facts, effort, searched),
    )


def _seen(facts: Facts, effort: Effort, samples: int) -> float:
    """Samples that one refinement of all weights together sees: by its work, its steps and its epochs, at most."""
    if not facts.data.given or facts.graph.quantized or facts.graph.family == "recurrent":
        return 0.0
    work = effort.refinement / (RUNS_A_USE * max(facts.data.real * facts.graph.macs, 1))
    return min(work, effort.epochs * min(STEPS_AN_EPOCH * LARGEST_BATCH, samples))
