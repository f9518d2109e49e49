"""The order in which residual branches are dropped, and what each drop costs: a greedy order measured on the network's
outputs, after the contractions around the drop have been re-fitted.

Without the re-fit the costs say little: the order by plain ablation is another one, and its costs are up to twenty
times too high. Costs of several drops do not add up either, hence the order is nested: the k-th entry is measured on
the re-fitted network with the ones before it dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.search.effort import NORMAL
from onnxprune.stats import Feeds, drift, padding, products, run
from onnxprune.stats.arrays import Array
from onnxprune.stats.reference import Reference
from onnxprune.stats.walk import Walk
from passes.block_removal import Branch, drop
from passes.structured_pruning.compensate import CompensationReport, Options, aims, compensate

HOPELESS = 0.25  # squared output error, the drift that is refused unless told: no further drop is of use
FITTED = 3  # contractions that are re-fitted for a look: the one before the branch and the two after it
FITTING_SAMPLES = 256
FEWEST_SAMPLES = 96
LOOK_MACS = 3e10  # multiply-adds of one pass over the samples that a look fits on: large models are fitted on fewer
ROWS_A_COLUMN = 20
LOOK = Options(ridges=(1e-2,), rounds=1, held_out=0)
"""How a look fits: the ridge is not searched for, which would take a quarter of its time."""


@dataclass(frozen=True)
class DropOrder:
    """Branches in the order they go, and the squared relative output error after each (cumulative, ascending)."""

    branches: tuple[Branch, ...] = ()
    error: tuple[float, ...] = ()

    @property
    def steps(self) -> tuple[float, ...]:
        """What each drop adds."""
        return tuple(np.diff(self.error, prepend=0.0).tolist())


@dataclass(frozen=True)
class _State:
    """A network with some branches gone: what stands for what, and its squared relative output error."""

    model: ir.Model
    aliases: Mapping[str, str]
    error: float = 0.0


def drop_order(
    model: ir.Model,
    branches: Sequence[Branch],
    feeds: Feeds,
    fitting: Feeds,
    saved: Mapping[str, float],
    tell: Callable[[str], None] = lambda text: None,
    hopeless: float = HOPELESS,
    look_ahead: int = NORMAL.look_ahead,
) -> DropOrder:
    """Drops the branch with the least added error per second saved (`saved`: any measure of it, by branch name), again
    and again, until nothing is left to drop or the outputs are lost: over a squared error of `hopeless`.

    `feeds`: samples whose outputs are compared; `fitting`: samples that weights are re-fitted on; `look_ahead`:
    candidates that are measured again after each drop.
    """
    if not branches:
        return DropOrder()
    look = _Look(model, feeds, fitting, branches)
    state = _State(model, {})
    alone = {}
    for position, branch in enumerate(branches):
        tell(f"{position + 1} of {len(branches)} alone")
        alone[branch.name] = look(state, branch).error
    left = sorted(branches, key=lambda branch: alone[branch.name] / saved[branch.name])
    left = [branch for branch in left if alone[branch.name] <= hopeless]
    order: list[Branch] = []
    errors: list[float] = []
    while left:
        tell(f"{len(order)} of {len(branches)} ordered")
        near = sorted(left[:look_ahead], key=branches.index)  # in graph order, as looks are cheapest
        found = {branch.name: look(state, branch) for branch in near}
        best = min(left[:look_ahead], key=lambda b: (found[b.name].error - state.error) / saved[b.name])
        if found[best.name].error > hopeless:
            break
        state = found[best.name]
        order.append(best)
        errors.append(max(state.error, errors[-1] * 1.001 if errors else 0.0))
        left.remove(best)
    return DropOrder(tuple(order), tuple(errors))


class _Look:
    """Drops a branch from a state, re-fits what is near, and compares the outputs with the dense network's.

    What lies before the branch is computed once for all looks at one state that come in graph order.
    """

    def __init__(self, model: ir.Model, feeds: Feeds, fitting: Feeds, branches: Sequence[Branch]) -> None:
        few = fitted_by_looks(model, fitting)
        self._dense, self._feeds = model, feeds
        self._reference = Reference(model, few, rows_a_column=ROWS_A_COLUMN)
        self._outputs = list(run(model, feeds))
        self._masks = list(padding(model, feeds))
        self._start(_State(model, {}))
        wanted: dict[str, int] = {}
        for branch in branches:
            wanted |= aims(model, *self._dropped(self._state, branch))
        self._reference.fetch(wanted)

    def __call__(self, state: _State, branch: Branch) -> _State:
        if state is not self._state:
            self._start(state)
        model, aliases, options = self._dropped(state, branch)
        fitted = compensate(
            self._dense,
            model,
            {},
            aliases=aliases,
            reference=self._reference,
            ahead=self._fitting,
            options=options,
        )
        return _State(model, aliases, squared(drift(self._outputs, self._run(model, fitted), self._masks)))

    def _start(self, state: _State) -> None:
        reference = self._reference
        self._state = state
        self._fitting = Walk(state.model, reference.feeds, batch=reference.batch)
        self._comparing = Walk(state.model, self._feeds)

    def _dropped(self, state: _State, branch: Branch) -> tuple[ir.Model, Mapping[str, str], Options]:
        model = state.model.copy()
        new = drop(model, [branch])
        return model, {**state.aliases, **new}, replace(LOOK, around=frozenset(new.values()), window=FITTED)

    def _run(self, model: ir.Model, fitted: CompensationReport) -> Iterator[Mapping[str, Array]]:
        """The outputs, from the first contraction on that was fitted."""
        first = products(model)[fitted.fits[0].node].data if fitted.fits else None
        walk = None if first is None else self._comparing.fork(model, first)
        outputs = list(self._outputs[0])
        if walk is None or any(not walk.is_ahead(name) for name in outputs):
            return run(model, self._feeds)
        return walk.advance(outputs)


def fitted_by_looks(model: ir.Model, fitting: Feeds) -> Feeds:
    """The samples, evenly spaced, that a quick look fits weights on."""
    try:
        macs = ir.macs(model, ir.shapes_for(model, fitting.call_shapes()))
        count = samples_of_a_look(len(fitting), macs / (fitting.fixed_batch or 1))
    except ModelError:  # sizes that only the values of the inputs decide
        count = samples_of_a_look(len(fitting), 1.0)
    return fitting.spread(count)


def samples_of_a_look(samples: int, macs: float) -> int:
    """How many of the samples a look fits weights on; `macs`: multiply-adds of one sample."""
    return min(samples, FITTING_SAMPLES, max(int(LOOK_MACS / max(macs, 1)), FEWEST_SAMPLES))


def squared(drifts: Mapping[str, float]) -> float:
    """Mean square of the relative errors of all outputs: the error that the search adds up."""
    return float(np.mean([min(value, 1e3) ** 2 for value in drifts.values()])) if drifts else 0.0
