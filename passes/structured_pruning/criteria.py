"""Criteria: how the units of a group are ranked. Each is one function from the evidence on a group to a score per unit.

=================  ====  ==========================================================================================
name               data  score of a unit; the lowest leaves first
=================  ====  ==========================================================================================
obs                yes   what the outputs lose after the other units have absorbed it (module ``obs``)
magnitude-l1       no    sum of the absolute weights that produce it (Li et al. 2017, arXiv 1608.08710)
magnitude-l2       no    root of the sum of their squares
bn-scale           no    absolute scale of the BatchNormalization that it passes (Liu et al. 2017, arXiv 1708.06519);
                         magnitude-l2 where that has been fused away
wanda              yes   sum over its consumers of |weight| x root mean square of the input (Sun et al. 2023, arXiv
                         2306.11695), each consumer relative to its total
geometric-median   no    distance of its producing weights to those of all other units (He et al. 2019, arXiv
                         1811.00250)
random             no    uniform, from the seed
=================  ====  ==========================================================================================
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune import ir
from onnxprune.channels import Group
from onnxprune.errors import UsageError
from onnxprune.stats import Product, Statistics
from onnxprune.stats.arrays import Array
from onnxprune.stats.weights import effective_weights
from passes.structured_pruning import recurrent
from passes.structured_pruning.obs import Curve, Problem, energy, removal_curve


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at. ``weights``: what they stand for, quantized ones times their scale. ``importance``:
    by contraction node, how much its relative error counts (1 where absent).
    """

    group: Group
    weights: Mapping[str, Array]
    statistics: Statistics | None
    scales: Mapping[str, Array]
    importance: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class Criterion:
    """``needs_data``: whether it uses activations. ``curve``: from evidence to the order of removal and its price."""

    needs_data: bool
    curve: Callable[[Evidence], Curve]


def evidence(
    model: ir.Model,
    group: Group,
    statistics: Statistics | None,
    importance: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Evidence:
    """On one group of ``model``."""
    names = {name for name, _ in group.owner}
    graphs = ir.graphs(model)
    weights: dict[str, Array] = {}
    for graph in graphs:
        weights.update(effective_weights(graph, names))
    scales = {
        node.inputs[1].name: weights[node.inputs[1].name]
        for graph in graphs
        for node in graph.graph.nodes
        if node.op in ("BatchNormalization", "InstanceNormalization") and node.inputs[1].name in weights
    }
    return Evidence(group, weights, statistics, scales, importance or {}, seed)


def problems(found: Evidence) -> list[Problem]:
    """The group's contractions with a constant weight and collected moments, one problem a group of a convolution."""
    return [problem for _, product, problem in _columns(found) if product is not None and problem.covariance.size]


def _columns(found: Evidence) -> Iterator[tuple[str, Product, Problem]]:
    if found.statistics is None:
        return
    for contraction in found.group.contractions:
        key = recurrent.product_key(contraction, found.statistics.products)
        product, moments = found.statistics.products.get(key), found.statistics.moments.get(key)
        if product is None or moments is None:
            continue
        weight = found.weights[contraction.tensor]
        matrix = product.matrix(weight if product.weight == contraction.tensor else recurrent.as_matrix(weight))
        owner = product.column_owner(found.group.owner[(contraction.tensor, contraction.axis)])
        covariance = moments.shrunk()
        if not np.isfinite(covariance).all():  # values that overflow, or masks of minus infinity
            continue
        parts = [Problem(covariance[g], matrix[g], owner[g]) for g in range(product.groups)]
        energies = np.array([energy(part) for part in parts])
        shares = energies / max(float(energies.sum()), 1e-30) * found.importance.get(contraction.node, 1.0)
        for part, share in zip(parts, shares, strict=True):
            yield contraction.node, product, Problem(part.covariance, part.matrix, part.owner, float(share))


def _obs(found: Evidence) -> Curve:
    parts = problems(found)
    if not parts:
        return _ranked(_magnitude(found, 2))
    return removal_curve(parts, found.group.width)


def _ranked(scores: Array) -> Curve:
    """Lowest first; the price of a width is the share of all scores that has left."""
    order = np.argsort(scores, kind="stable")
    paid = np.concatenate([[0.0], np.cumsum(scores[order])])
    return Curve(order.astype(np.int64), paid / max(float(paid[-1]), 1e-30))


def _producing(found: Evidence) -> Iterator[tuple[Array, Array]]:
    """For every producing weight axis: the rows (elements, rest) and the unit of each.

    Codes of a quantized weight say little without their scales: where those are producers too, they speak alone.
    """
    held = [key for key in found.group.producers if key[0] in found.weights]
    real = [key for key in held if found.weights[key[0]].dtype.kind not in "iub"]
    for name, axis in real or held:
        weight = found.weights[name]
        yield np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1), found.group.owner[(name, axis)]


def _sum_by_unit(values: Array, owner: Array, width: int) -> Array:
    used = owner >= 0
    return np.bincount(owner[used], weights=values[used], minlength=width)


def _magnitude(found: Evidence, power: int) -> Array:
    total = np.zeros(found.group.width)
    for rows, owner in _producing(found):
        total += _sum_by_unit((np.abs(rows.astype(np.float64)) ** power).sum(1), owner, len(total))
    return np.asarray(total ** (1 / power))


def _bn_scale(found: Evidence) -> Array:
    total = np.zeros(found.group.width)
    for name, scale in found.scales.items():
        total += _sum_by_unit(np.abs(scale.astype(np.float64)), found.group.owner[(name, 0)], len(total))
    return total if total.any() else _magnitude(found, 2)


def _wanda(found: Evidence) -> Array:
    total = np.zeros(found.group.width)
    for _, _, part in _columns(found):
        sizes = np.sqrt(np.maximum(np.diag(part.covariance), 0))
        scores = np.abs(part.matrix).sum(0) * sizes
        total += part.weight * _sum_by_unit(scores, part.owner, len(total)) / max(float(scores.sum()), 1e-30)
    return total if total.any() else _magnitude(found, 2)


def _geometric_median(found: Evidence) -> Array:
    total = np.zeros(found.group.width)
    for rows, owner in _producing(found):
        flat = rows.astype(np.float64)
        squares = np.square(flat).sum(1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0)).sum(1)
        total += _sum_by_unit(distances / max(float(distances.sum()), 1e-30), owner, len(total))
    return total


def _random(found: Evidence) -> Array:
    return np.random.default_rng([found.seed, zlib.crc32(found.group.name.encode())]).random(found.group.width)


CRITERIA: Mapping[str, Criterion] = {
    "obs": Criterion(True, _obs),
    "magnitude-l1": Criterion(False, lambda found: _ranked(_magnitude(found, 1))),
    "magnitude-l2": Criterion(False, lambda found: _ranked(_magnitude(found, 2))),
    "bn-scale": Criterion(False, lambda found: _ranked(_bn_scale(found))),
    "wanda": Criterion(True, lambda found: _ranked(_wanda(found))),
    "geometric-median": Criterion(False, lambda found: _ranked(_geometric_median(found))),
    "random": Criterion(False, lambda found: _ranked(_random(found))),
}


def criterion(name: str) -> Criterion:
    """By name; raises UsageError that lists the names."""
    if name not in CRITERIA:
        raise UsageError(f"unknown criterion {name!r}; choose one of {', '.join(CRITERIA)}")
    return CRITERIA[name]
