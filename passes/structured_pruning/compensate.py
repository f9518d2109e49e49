"""Re-fits the weights of a compressed model, without labels, to the dense network's activations.

Contractions are solved in topological order on what the compressed, already re-fitted part before them really delivers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from onnxprune import ir
from onnxprune.channels import AxisKey
from onnxprune.stats import Feeds, Product, Statistics
from onnxprune.stats.arrays import Array
from onnxprune.stats.columns import columns, spatial
from onnxprune.stats.reference import Reference
from onnxprune.stats.row_norms import row_weights
from onnxprune.stats.walk import Walk
from onnxprune.stats.weights import effective_weights
from passes.structured_pruning.least_squares import RIDGES, predict, solve
from passes.structured_pruning.obs import absorbed
from passes.structured_pruning.rows import Chain, held_out_rows, joined, other_rows, relative_error, split
from passes.structured_pruning.sites import BiasSite, is_writable, write
from passes.structured_pruning.targets import Plan, plans

UNASSIGNABLE = "operands of quantized operators, and weights that others read in another form, are not fitted"


@dataclass(frozen=True)
class Options:
    """``ridges``: candidates, relative to the mean variance of a column; held-out rows choose. ``rounds``: re-fits of
    one-sided targets.

    ``held_out``: share of the calls (with few calls, of the samples in each) that choose the ridge. ``largest``:
    contractions with more columns a group keep their weights. ``drift_correction``: targets reach over additions, so
    that a branch makes up for what its shortcut carries; without it they are the contraction's own dense outputs.
    ``around``: names of dense tensors; with them only the
    ``window`` contractions that come first at or after a target among them are fitted, for a quick look at one change.
    """

    ridges: Sequence[float] = RIDGES
    rounds: int = 5
    held_out: float = 0.15
    largest: int = 6144
    threads: int = 0
    drift_correction: bool = True
    around: frozenset[str] = frozenset()
    window: int = 3


@dataclass(frozen=True)
class Fit:
    """One contraction: rows used, ridge chosen, and the relative squared error of its target before and after."""

    node: str
    rows: int
    ridge: float
    before: float
    after: float


@dataclass(frozen=True)
class CompensationReport:
    """The fits in the order in which they were made, and the contractions that were left alone, with the reason."""

    fits: tuple[Fit, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)


def compensate(
    dense: ir.Model,
    compressed: ir.Model,
    removed: Mapping[AxisKey, Array],
    feeds: Feeds | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    reference: Reference | None = None,
    statistics: Statistics | None = None,
    ahead: Walk | None = None,
    options: Options | None = None,
) -> CompensationReport:
    """Assigns new weights and biases in ``compressed``, in place.

    ``removed``: indices that left each axis of ``dense`` (``ChannelGraph.removals``). ``aliases``: compressed tensor
    -> dense tensor that it stands for (``block_removal.drop``). ``reference``: of ``dense``; made from ``feeds``
    where absent, to be shared between candidates. ``statistics``: moments of ``dense``, for the closed-form weights
    that the ridge pulls to; without them it pulls to the sliced ones. ``ahead``: a walk over ``reference.feeds``
    through a model that differs from ``compressed`` in nothing before the first contraction that is fitted: it is taken
    there, and what it has computed is not computed again.
    """
    chosen = options or Options()
    if reference is None:
        if feeds is None:
            raise ValueError("compensate needs feeds or a reference")
        reference = Reference(dense, feeds, threads=chosen.threads)
    work = _Work(dense, compressed, removed, reference, statistics, ahead, chosen)
    return work.run(_todo(dense, compressed, aliases, chosen))


def aims(
    dense: ir.Model, compressed: ir.Model, aliases: Mapping[str, str] | None = None, options: Options | None = None
) -> dict[str, int]:
    """The dense tensors that `compensate` aims at with these arguments, and their channel axes: what a reference of
    many candidates can fetch at once.
    """
    return {plan.dense: plan.product.channel_axis for plan in _todo(dense, compressed, aliases, options or Options())}


def _todo(dense: ir.Model, compressed: ir.Model, aliases: Mapping[str, str] | None, options: Options) -> Sequence[Plan]:
    """The plans that ``options.around`` leaves; all of them where it names nothing."""
    todo = plans(dense, compressed, aliases, over_sums=options.drift_correction)
    if not options.around:
        return todo
    start = next((place for place, plan in enumerate(todo) if plan.dense in options.around), 0)
    return todo[start : start + options.window]


@dataclass
class _Rows:
    """What is gathered for one plan, call by call."""

    columns: list[Array] = field(default_factory=list)
    others: dict[str, list[Array]] = field(default_factory=dict)


class _Work:
    def __init__(
        self,
        dense: ir.Model,
        compressed: ir.Model,
        removed: Mapping[AxisKey, Array],
        reference: Reference,
        statistics: Statistics | None,
        ahead: Walk | None,
        options: Options,
    ) -> None:
        self._dense, self._tensors = dense, ir.tensors(compressed)
        self._compressed, self._removed, self._reference = compressed, removed, reference
        self._statistics, self._options = statistics, options
        self._nodes = {ir.node_key(node): node for node in compressed.graph.nodes}
        self._ahead = ahead

    def run(self, todo: Sequence[Plan]) -> CompensationReport:
        skipped = {plan.product.node: reason for plan in todo if (reason := self._left_alone(plan))}
        usable = [plan for plan in todo if plan.product.node not in skipped]
        self._reference.fetch({plan.dense: plan.product.channel_axis for plan in usable})
        self._walk = self._start(usable)
        fits: list[Fit] = []
        for _, wave in groupby(usable, key=lambda plan: plan.wave):
            together = list(wave)
            for plan, rows in zip(together, self._gather(together), strict=True):
                if all(np.isfinite(block).all() for block in rows.columns):
                    fits.append(self._fit(plan, rows))
                else:
                    skipped[plan.product.node] = "its input holds infinite values"
        return CompensationReport(tuple(fits), skipped)

    def _start(self, usable: Sequence[Plan]) -> Walk:
        """From where the compressed model has to be run."""
        if self._ahead is not None and usable:
            known = self._ahead.fork(self._compressed, usable[0].product.data)
            if known is not None:
                return known
        feeds, batch = self._reference.feeds, self._reference.batch
        return Walk(self._compressed, feeds, batch=batch, threads=self._options.threads)

    def _left_alone(self, plan: Plan) -> str:
        """Why a contraction keeps its weights; empty where it does not."""
        if plan.product.fixed or not self._is_written(plan.product.weight):
            return UNASSIGNABLE
        if plan.product.size > self._options.largest:
            return f"more than {self._options.largest} columns"
        rank = len(self._tensors[plan.product.output].shape or ())
        others = [axis for axis in range(rank) if axis != plan.product.channel_axis % rank]
        if any((name, axis) in self._removed for name in (plan.dense, plan.product.output) for axis in others):
            return "rows of its target have left, not only channels"
        return ""

    def _is_written(self, name: str) -> bool:
        tensor = self._tensors[name]
        return isinstance(tensor, ir.Constant) or is_writable(tensor)

    def _values(self, model: ir.Model, name: str) -> Array:
        """The values of a weight or bias, as it is multiplied with or added."""
        return effective_weights(model, [name])[name]

    def _gather(self, wave: Sequence[Plan]) -> list[_Rows]:
        gathered = [_Rows(others={name: [] for name in plan.others}) for plan in wave]
        wanted = list(dict.fromkeys(name for plan in wave for name in (plan.product.data, *plan.others)))
        for call, tensors in enumerate(self._walk.advance(wanted)):
            for plan, found in zip(wave, gathered, strict=True):
                data = tensors[plan.product.data]
                batch, places = spatial(plan.product, data)
                rows = self._reference.rows(call, batch, places)
                found.columns.append(columns(plan.product, data, rows))
                for name in plan.others:
                    found.others[name].append(other_rows(tensors[name], plan.product, batch, places, rows))
        return gathered

    def _fit(self, plan: Plan, rows: _Rows) -> Fit:
        product = plan.product
        x = np.concatenate(rows.columns, 1)
        others = {name: np.concatenate(parts) for name, parts in rows.others.items()}
        goal = np.concatenate([self._reference.at(plan.dense, call) for call in range(len(self._walk))])
        weights = row_weights(goal) if plan.normalised else None
        goal = np.delete(goal, self._gone(plan), axis=1)
        chain = Chain(plan.links, others)
        low = None if plan.low is None else goal <= plan.low
        high = None if plan.high is None else goal >= plan.high

        def project(y: Array) -> Array:
            """Predictions to the nearest acceptable outputs."""
            ahead, wanted = chain.forward(joined(y)), goal
            if low is not None and plan.low is not None:
                wanted = np.where(low, np.minimum(ahead, plan.low), wanted)
            if high is not None and plan.high is not None:
                wanted = np.where(high, np.maximum(ahead, plan.high), wanted)
            return split(chain.backward(wanted), product.groups)

        site = self._bias_site(plan)
        old = self._values(self._compressed, product.weight)
        start = split(self._bias(plan)[None], product.groups)[:, 0]
        before = relative_error(project, predict(x, product.matrix(old), start))
        kept = (np.zeros_like(start) if site is not None else start)[:, None].astype(np.float32)  # a bias that stays
        held_out = held_out_rows([block.shape[1] for block in rows.columns], self._options.held_out)
        solution = solve(
            x,
            split(chain.backward(goal), product.groups) - kept,
            self._centre(plan),
            intercept=site is not None,
            ridges=self._options.ridges,
            held_out=held_out,
            project=(lambda y: project(y + kept) - kept) if low is not None or high is not None else None,
            rounds=self._options.rounds,
            weights=weights,
        )
        bias = solution.bias if site is not None else start
        write(self._tensors[product.weight], product.values(solution.weights, old.shape, np.dtype(np.float64)))
        if site is not None:
            site.put(solution.bias.reshape(-1))
        stored = product.matrix(self._values(self._compressed, product.weight))
        return Fit(product.node, x.shape[1], solution.ridge, before, relative_error(project, predict(x, stored, bias)))

    def _gone(self, plan: Plan) -> Array:
        """Channels of the dense target that the compressed tensor no longer has."""
        for name in (plan.dense, plan.product.output):
            axes = [axis for tensor, axis in self._removed if tensor == name]
            wanted = plan.product.channel_axis if plan.product.channel_axis >= 0 else max(axes, default=-1)
            if wanted in axes:
                return np.asarray(self._removed[(name, wanted)])
        return np.zeros(0, np.int64)

    def _centre(self, plan: Plan) -> Array:
        """The dense weights of what is left, after they have absorbed the columns that are gone."""
        name = plan.product.weight
        old = self._reference.products[plan.product.node]
        values = self._values(self._dense, name)
        gone = self._removed.get((name, old.input_axis), np.zeros(0, np.int64))
        moments = None if self._statistics is None else self._statistics.moments.get(old.node)
        if len(gone) and moments is not None:
            values = _absorb(old, values, gone, moments.shrunk())
        for axis in range(values.ndim):
            if (name, axis) in self._removed:
                values = np.delete(values, self._removed[(name, axis)], axis)
        return plan.product.matrix(values)

    def _bias(self, plan: Plan) -> Array:
        """What the node itself adds now, one number an output."""
        product = plan.product
        if product.bias is None:
            return np.zeros(product.outputs)
        values = effective_weights(self._compressed, [product.bias]).get(product.bias)
        if values is None:
            return np.zeros(product.outputs)
        return np.broadcast_to(np.asarray(values, np.float64).reshape(-1) * product.bias_factor, (product.outputs,))

    def _bias_site(self, plan: Plan) -> BiasSite | None:
        """Where a new bias can go: the node's own, else the next constant that is added, else a new input; None where
        none can.
        """
        product = plan.product
        if product.bias is not None and product.bias_factor:
            own = self._alone(product.bias, product.outputs)
            if own is not None:
                return BiasSite(own, np.ones(1) / product.bias_factor, np.zeros(1))
            return None
        scale = np.ones(1)
        for link in plan.links:
            scale = scale if link.scale is None else scale * link.scale
            found = None if link.constant is None else self._alone(link.constant, product.outputs)
            if found is not None:
                base = self._values(self._compressed, str(found.name))
                return BiasSite(found, scale, np.asarray(base, np.float64).reshape(-1))
        if product.op == "MatMul" or product.bias is not None:
            return None
        dtype = np.dtype(self._tensors[product.weight].dtype)
        fresh = ir.Constant(f"{product.output}.bias", np.zeros(product.outputs, dtype))
        return BiasSite(fresh, np.ones(1), np.zeros(1), self._nodes[product.node])

    def _alone(self, name: str, size: int) -> ir.Constant | ir.Variable | None:
        """The constant, where it has ``size`` elements and one reader."""
        tensor = self._tensors[name]
        fits = tensor.shape is not None and list(tensor.shape).count(size) and np.prod(tensor.shape) == size
        return tensor if fits and is_writable(tensor) else None


def _absorb(product: Product, values: Array, gone: Array, covariance: Array) -> Array:
    """Weights of the full shape whose remaining columns have absorbed the removed ones, which are zero."""
    owner = np.zeros(values.shape[product.input_axis], np.int64)
    owner[gone] = 1
    left = product.column_owner(owner) == 0
    matrix = product.matrix(values)
    for group in range(product.groups):
        kept = np.flatnonzero(left[group])
        moved = absorbed(covariance[group], matrix[group], kept)
        matrix[group] = 0
        matrix[group][:, kept] = moved
    return product.values(matrix, values.shape, np.dtype(np.float64))
