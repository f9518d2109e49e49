"""Refines all weights of a compressed model together, without labels, by gradients of its distance to the dense one.

The layer-wise fits see one contraction at a time. Here every weight moves so that the outputs, and the tensors that
everything passes through on the way, come nearer to the dense network's: sum over targets of |y - dense|^2 over the
variance of the dense tensor. Samples that are held out decide which of the visited weights are kept, the first
included, so that what does not help changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, tee

import numpy as np

from onnxprune import ir
from onnxprune.channels import AxisKey
from onnxprune.cores import physical_cores
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.drift import drift
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.runner import Runner
from passes.refinement.adam import Adam
from passes.refinement.batches import SHARDS, Batches, Call, Shard, shard_size
from passes.refinement.differentiate import Gradient, Gradients
from passes.refinement.targets import Target, outputs_follow, targets
from passes.refinement.whitening import Basis, bases

RUNS_A_USE = 3
LARGEST_BATCH = 32
STEPS_AN_EPOCH = 50  # at most
_STEPS_AT_LEAST = 120
EPOCHS = 8  # what follows gains little for its time
_WORSE, _SHORTER = 1.1, 0.3  # an error this much over the best one goes back to it, with steps this much shorter
_FIRST_LOOK = 12  # steps before the first look, and after a return: whether a rate is too large shows early
_FOLLOWING = 0.1
"""What outputs count against the tensors before them where they follow from the last of those: few numbers a sample are
learned by heart before the many of a feature map are."""
_MEMORY = 256 << 20  # bytes of the activations of one batch


@dataclass(frozen=True)
class RefineOptions:
    """``steps``: of the descent, each on ``batch`` samples. ``epochs``: times that a sample is seen, at most. ``rate``:
    of the largest step, relative to the size of a weight tensor. ``features``: targets before the outputs, at most.
    ``held_out``: share of the samples that choose. ``looks``: times that they are asked, and a few times more at the
    start. ``enough``: squared relative error of the outputs that needs no refinement.
    """

    steps: int = 160
    batch: int = 32
    epochs: int = EPOCHS
    rate: float = 0.015
    features: int = 12
    held_out: float = 0.12
    looks: int = 8
    enough: float = 1e-5
    seed: int = 0
    threads: int = 0

    @staticmethod
    def within(
        work: float,
        dense: ir.Model,
        compressed: ir.Model,
        feeds: Feeds,
        *,
        epochs: int = EPOCHS,
        seed: int = 0,
    ) -> RefineOptions:
        """As many steps as ``work`` multiply-adds allow on the samples of ``feeds``.

        Each of them costs one run of the dense model, and every use of one a run of the compressed one and two backward
        products. With few uses the batches get smaller, so that there are steps enough, and large images too, for the
        memory. Raises ModelError where the values of inputs decide sizes.
        """
        inputs = feeds.call_shapes()
        shapes, samples = ir.shapes_for(dense, inputs), len(feeds)
        whole = max(ir.macs(dense, shapes), 1)
        each = RUNS_A_USE * max(ir.macs(compressed, ir.shapes_for(compressed, inputs)), 1)
        uses = work / (whole + each)
        if uses > samples:
            uses = (work - samples * whole) / each
        constants = ir.initializers(dense)
        size = sum(4 * math.prod(shape) for name, shape in shapes.items() if name not in constants)
        batch = min(LARGEST_BATCH, max(int(uses / _STEPS_AT_LEAST), 4), max(int(_MEMORY / max(size, 1)), 1))
        steps = min(int(uses / batch), STEPS_AN_EPOCH * epochs)
        return RefineOptions(steps=steps, batch=batch, epochs=epochs, seed=seed)


@dataclass(frozen=True)
class Refinement:
    """Weights that were trained, and the squared relative error of the outputs on held-out samples before and after;
    ``steps`` is that of the weights that are kept: 0 where the first ones are the best, or good enough.
    """

    weights: tuple[str, ...] = ()
    before: float = 0.0
    after: float = 0.0
    steps: int = 0


def refine(
    dense: ir.Model,
    compressed: ir.Model,
    removed: Mapping[AxisKey, Array],
    feeds: Feeds,
    *,
    held: Feeds | None = None,
    aliases: Mapping[str, str] | None = None,
    options: RefineOptions | None = None,
) -> Refinement:
    """Assigns new weights in ``compressed``, in place; what they are is in :class:`Refinement`.

    ``held``: samples that choose, best some that the weights have not been fitted to before; a part of ``feeds`` where
    absent. ``removed`` and ``aliases`` are those of ``structured_pruning.compensate``. Weights from which a way to the
    targets leads through an operator without a gradient, quantized weights and embeddings keep their values.
    """
    chosen = options or RefineOptions()
    goals = targets(dense, compressed, removed, aliases or {}, chosen.features)
    if not any(goal.output for goal in goals):
        return Refinement()
    fit, check = feeds.split(1 - chosen.held_out, chosen.seed) if held is None else (feeds, held)
    first = next(fit.calls(shard_size(chosen.batch)))
    try:
        goals = _comparable(dense, compressed, goals, first, chosen.threads)
        cores = chosen.threads or physical_cores()
        each = max(cores // SHARDS, 1)
        gradients = Gradients.of(compressed, [goal.name for goal in goals], first, threads=each)
        if gradients is None:
            return Refinement()
        with ThreadPoolExecutor(min(SHARDS, cores)) as workers:
            return _Descent(dense, compressed, goals, gradients, chosen, workers).run(fit, check)
    except ModelError:  # sizes that depend on values, and forms of operators that the runtime's kernels do not take
        return Refinement()


def _comparable(
    dense: ir.Model, compressed: ir.Model, goals: Sequence[Target], call: Call, threads: int
) -> list[Target]:
    """The targets that have one shape in both models."""
    inputs = list(call)
    before = Runner(dense, [goal.dense for goal in goals], inputs, threads=threads)(call)
    after = Runner(compressed, [goal.name for goal in goals], inputs, threads=threads)(call)
    return [goal for goal in goals if goal.wanted(before[goal.dense]).shape == after[goal.name].shape]


class _Descent:
    def __init__(
        self,
        dense: ir.Model,
        compressed: ir.Model,
        goals: Sequence[Target],
        gradients: Gradients,
        options: RefineOptions,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._workers = workers
        self._goals = [goal for goal in goals if goal.name in gradients.targets]
        self._dense_model, self._compressed, self._gradients, self._options = dense, compressed, gradients, options
        inputs = [tensor.name for tensor in ir.feed_inputs(dense)]
        names = list(dict.fromkeys(goal.dense for goal in self._goals))
        self._dense = Runner(dense, names, inputs, threads=options.threads)
        self._tensors = ir.initializers(compressed)
        self._weights = {name: np.asarray(self._tensors[name].values, np.float32) for name in gradients.names}
        self._scales: dict[str, float] = {}

    def run(self, fit: Feeds, check: Feeds) -> Refinement:
        options = self._options
        seen = Batches(self._dense_model, fit, options.batch, self._wanted, options.seed)
        judged = Batches(self._dense_model, check, options.batch, self._wanted, seed=None)
        self._scales = self._measure_scales(seen[len(seen) // 2])
        before = best = self._error(judged)
        if before <= options.enough:
            return Refinement(before=before, after=before)
        adam, rate = Adam.of(self._weights, self._bases(fit)), options.rate
        kept, steps = dict(self._weights), 0
        total = min(options.steps, options.epochs * len(seen))
        longest = max(total // max(options.looks, 1), 1)
        gap = due = shortest = min(_FIRST_LOOK, longest)
        for step, place in enumerate(islice(_shuffled(len(seen), options.seed), total), start=1):
            adam.step(self._weights, self._slopes(seen[place]), rate * _schedule(step, total))
            if step == min(due, total):
                error = self._error(judged)
                gap = min(2 * gap, longest)
                if error < best:
                    best, kept, steps = error, dict(self._weights), step
                elif error > _WORSE * best:  # deep networks take smaller steps: once more from the best, shorter
                    self._weights, adam, rate = dict(kept), adam.afresh(), _SHORTER * rate
                    gap = shortest
                due = step + gap
                if not steps and step >= total // 2:  # nothing to be found here
                    break
        for name, values in kept.items() if steps else ():
            self._tensors[name].values = values
        return Refinement(self._gradients.names, before, best, steps)

    def _bases(self, feeds: Feeds) -> dict[str, Basis]:
        options = self._options
        names = self._gradients.names
        return bases(self._compressed, names, feeds, batch=options.batch, seed=options.seed, threads=options.threads)

    def _wanted(self, call: Call) -> dict[str, Array]:
        dense = self._dense(call)
        return {goal.name: goal.wanted(dense[goal.dense]) for goal in self._goals}

    def _measure_scales(self, shards: Sequence[Shard]) -> dict[str, float]:
        """What a squared error of each target counts: the tensors before the outputs 1 in all, and outputs 1 in all, or
        less where they follow.
        """
        scales = {}
        following = _FOLLOWING if outputs_follow(self._compressed, self._goals) else 1.0
        for goal in self._goals:
            alike = sum(other.output == goal.output for other in self._goals)
            variance = max(float(np.mean([shard.wanted[goal.name].var(dtype=np.float64) for shard in shards])), 1e-20)
            scales[goal.name] = (following if goal.output else 1.0) / (variance * alike)
        return scales

    def _slopes(self, shards: Sequence[Shard]) -> dict[str, Array]:
        """Gradients of the sum of the losses of the shards, each found by a worker of its own."""
        parts = self._workers.map(self._slope, self._at(shards), shards)
        total = next(parts)
        for part in parts:
            total = {name: values + part[name] for name, values in total.items()}
        return total

    def _slope(self, gradient: Gradient, shard: Shard) -> dict[str, Array]:
        found = gradient.forward(shard.call, self._weights)
        return gradient.backward(found, self._weights, self._losses(found, shard))

    def _forward(self, gradient: Gradient, shard: Shard) -> dict[str, Array]:
        return gradient.forward(shard.call, self._weights)

    def _at(self, shards: Sequence[Shard]) -> list[Gradient]:
        """One a shard; not by the workers, since one for new shapes is to be made once."""
        return [self._gradients.at(shard.call) for shard in shards]

    def _losses(self, found: Call, shard: Shard) -> dict[str, Array]:
        """The gradient of the mean squared error of each target."""
        losses = {}
        for name, wanted in shard.wanted.items():
            change = _hidden(found[name] - wanted, shard.mask)
            losses[name] = (2 * self._scales[name] / change.size * change).astype(np.float32)
        return losses

    def _error(self, judged: Batches) -> float:
        """The squared relative error of the outputs, the mean over them."""
        names = [goal.name for goal in self._goals if goal.output]
        wanted, found, masks = tee(self._judgements(judged), 3)  # read in step, so no more than one batch is held
        drifts = drift(
            ({name: shard.wanted[name] for name in names} for shard, _ in wanted),
            (values for _, values in found),
            (shard.mask for shard, _ in masks),
        )
        return float(np.mean([value**2 for value in drifts.values()]))

    def _judgements(self, judged: Batches) -> Iterator[tuple[Shard, dict[str, Array]]]:
        for shards in judged:
            yield from zip(shards, self._workers.map(self._forward, self._at(shards), shards), strict=True)


def _shuffled(count: int, seed: int) -> Iterator[int]:
    """The numbers under `count` in random order, again and again."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permutation(count).tolist()


def _hidden(values: Array, mask: Array | None) -> Array:
    """Zero where a mask over (samples, tokens) says that there is only padding."""
    if mask is None or values.shape[:2] != mask.shape:
        return values
    shown: Array = np.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)) != 0, values, np.float32(0))
    return shown


def _schedule(step: int, steps: int) -> float:
    """Up over the first steps, then down along a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    warm = min(1.0, step / max(1, min(10, steps // 8)))
    return float(warm * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps)))
