"""What a plan loses once it is compensated, found out at a fraction of the cost: few samples, one round, one
ridge, no proof.

Compensation changes the order of plans: what it can make up for differs from level to level, and drops of branches are
made up for best. So plans that predictions call close are rehearsed before the best of them are finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from onnxprune.search.depth import LOOK, ROWS_A_COLUMN, fitted_by_looks, squared
from onnxprune.search.plan import Plan, chosen_branches, narrowed
from onnxprune.search.workspace import Workspace
from onnxprune.stats import drift, padding, run
from onnxprune.stats.arrays import Array
from onnxprune.stats.reference import Reference
from passes.structured_pruning import recurrent
from passes.structured_pruning.compensate import compensate


class Rehearsal:
    """Call it with a plan and its keep masks: the squared relative output error in float, on samples that nothing was
    fitted to (with few samples those that were fitted to say nothing).
    """

    def __init__(self, work: Workspace) -> None:
        self._work = work
        self._feeds = work.probe_feeds()
        self._dense = list(run(work.base, self._feeds))
        self._masks = list(padding(work.base, self._feeds))

    @cached_property
    def _reference(self) -> Reference:
        base = self._work.fitting_base
        return Reference(base, fitted_by_looks(base, self._work.fitting), rows_a_column=ROWS_A_COLUMN)

    def __call__(self, plan: Plan, keep: Mapping[str, Array]) -> float:
        work = self._work
        model, aliases = narrowed(work.base, work.graph, keep, chosen_branches(work.branches, plan))
        if work.options.uses("compensation"):
            model = work.fitting_form(model)
            compensate(
                work.fitting_base,
                model,
                recurrent.slices(work.open_base, work.graph.removals(keep)),
                aliases=aliases,
                reference=self._reference,
                statistics=work.statistics,
                options=LOOK,
            )
        return squared(drift(self._dense, run(model, self._feeds), self._masks))
