"""Moves the sizes of channels between activations and weights before quantization, without changing the function.

An activation has one scale, a weight a scale an output. A channel much larger than the others takes the levels of all
of them; dividing it by a factor, and multiplying by that what the readers' weights hold for it, gives them back.
SmoothQuant (Xiao et al., arXiv 2211.10438, eq. 3 and 4) chooses the factors, per tensor with the exponent whose 8-bit
form changes the readers' outputs least; where the divisor goes is in `equalize_sites`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.ir.objects import Node, Variable
from onnxprune.stats import Feeds
from onnxprune.stats.product import Product, products
from passes.quantization import reader_ranges, selection
from passes.quantization.equalize_sites import Site, sites
from passes.quantization.ranges import Observed
from passes.quantization.reader_ranges import Reader, sketch
from passes.quantization.scheme import Scheme

EXPONENTS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Shares of a channel's size that go to the weights."""
WORTH_WEIGHTS = 0.97
WORTH_NODE = 0.8
"""A tensor is divided only where that leaves at most this share of its error: in weights alone, or by a Mul node."""
_SHRINKS = (1.0, 0.8, 0.6, 0.45, 0.3)


def equalize(model: ir.Model, feeds: Feeds, scheme: Scheme) -> int:
    """Divides the channels of what 8-bit contractions read, in place; returns how many tensors changed. `model` is in
    the form of `static.prepare`. Exact up to float rounding.
    """
    chosen = selection.select(model, frozenset(scheme.exclude))
    known = products(model)
    places = sites(model, chosen, known)
    rows = reader_ranges.sampled_rows(model, [known[key] for site in places for key in site.readers], feeds)
    limit, symmetric = (63 if scheme.seven_bits else 127), scheme.activation == "s8"
    changed = 0
    for site in places:
        wanted = [known[key] for key in site.readers if key in rows]
        if len(wanted) < len(site.readers):
            continue
        weights = {item.node: np.asarray(ir.initializers(model)[item.weight].values) for item in wanted}
        factor = _factor(site, wanted, weights, rows, limit, symmetric)
        if factor is not None:
            apply(model, site, factor, known)
            changed += 1
    ir.topological_sort(model)
    return changed


def insert_everywhere(model: ir.Model, scheme: Scheme) -> None:
    """Puts a Mul by ones wherever `equalize` may need one, in place: the most that it can cost in latency."""
    known = products(model)
    for site in sites(model, selection.select(model, frozenset(scheme.exclude)), known):
        if site.producer is None:
            apply(model, site, np.ones(site.channels), known)
    ir.topological_sort(model)


def _factor(
    site: Site,
    readers: Sequence[Product],
    weights: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    limit: int,
    symmetric: bool,
) -> np.ndarray | None:
    """The factor of every channel with the least error in the readers' outputs; None where none is worth it."""
    matrices = {item.node: item.matrix(weights[item.node]) for item in readers}
    large = np.max([_largest(item, rows[item.node], site.channels) for item in readers], axis=0)
    heavy = np.max([_largest(item, matrices[item.node], site.channels) for item in readers], axis=0)
    live = (large > 0) & (heavy > 0)
    if not live.any():
        return None

    def error(factor: np.ndarray) -> float:
        views = [_scaled(rows[item.node], matrices[item.node], over_columns(item, factor), limit) for item in readers]
        low, high = min(view.rows.min() for view in views), max(view.rows.max() for view in views)
        span = Observed(float(low), float(high), np.zeros(0, np.float32))
        ends = reader_ranges.best(views, span, symmetric, _SHRINKS)
        return sum(view.error(*ends) for view in views)

    candidates = []
    for exponent in EXPONENTS:
        factor = np.ones(site.channels)
        factor[live] = large[live] ** exponent / heavy[live] ** (1 - exponent)
        factor[live] /= np.exp(np.log(factor[live]).mean())
        candidates.append(factor)
    errors = [error(factor) for factor in candidates]
    worth = WORTH_NODE if site.producer is None else WORTH_WEIGHTS
    place = int(np.argmin(errors))
    return candidates[place] if errors[place] <= worth * error(np.ones(site.channels)) else None


def _scaled(rows: np.ndarray, matrix: np.ndarray, factor: np.ndarray, limit: int) -> Reader:
    """A contraction after the move: rows divided, weights multiplied, and what rounding these weights changes."""
    moved = matrix * factor[:, None, :]
    step = np.maximum(np.abs(moved).max(2, keepdims=True), 1e-30) / limit
    divided = (rows / factor[:, None, :]).astype(np.float32)
    return Reader(divided, sketch(moved), sketch(np.rint(moved / step) * step - moved))


def _largest(product: Product, values: np.ndarray, channels: int) -> np.ndarray:
    """Largest magnitude of every input channel in (groups, any, columns)."""
    most = np.abs(values).max(1, initial=0.0).reshape(product.groups, product.kernel, -1).max(1)
    return np.asarray(most.reshape(channels), np.float64)


def over_columns(product: Product, factor: np.ndarray) -> np.ndarray:
    """A value a channel as (groups, columns)."""
    split = factor.reshape(product.groups, 1, -1)
    return np.tile(split, (1, product.kernel, 1)).reshape(product.groups, -1)


def apply(model: ir.Model, site: Site, factor: np.ndarray, known: Mapping[str, Product]) -> None:
    """Divides a site's tensor by `factor`, a value a channel, and multiplies the readers' weights by it; in place."""
    nodes = {ir.node_key(node): node for node in model.graph.nodes}
    for key in site.readers:
        product, weight = known[key], np.asarray(ir.constant(nodes[key].inputs[1]), np.float64)
        columns = product.matrix(weight) * over_columns(product, factor)[:, None, :]
        _replace(nodes[key], 1, product.values(columns, weight.shape, np.dtype(np.float32)))
    if site.producer is None:
        _divide(model, [nodes[key] for key in site.readers], site, factor)
        return
    node, product = nodes[site.producer], known[site.producer]
    weight = np.asarray(ir.constant(node.inputs[1]), np.float64)
    shape = [1] * weight.ndim
    shape[product.output_axis] = -1
    _replace(node, 1, (weight / factor.reshape(shape)).astype(np.float32))
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = np.asarray(ir.constant(node.inputs[2]), np.float64)
        _replace(node, 2, (bias / factor.reshape((1,) * (bias.ndim - 1) + (-1,))).astype(np.float32))


def _replace(node: gs.Node, slot: int, values: np.ndarray) -> None:
    node.inputs[slot] = ir.Constant(f"{node.inputs[slot].name}_of_{ir.node_key(node)}_equalized", values)


def _divide(model: ir.Model, readers: Sequence[gs.Node], site: Site, factor: np.ndarray) -> None:
    source = readers[0].inputs[0]
    result = Variable(f"{site.tensor}__equalized", source.dtype, source.shape)
    share = ir.Constant(f"{site.tensor}__share", (1.0 / factor).astype(np.float32))
    name = f"{site.tensor}__equalize"
    model.graph.nodes.append(Node("Mul", name, {}, [source, share], [result]))
    for node in readers:
        node.inputs[0] = result
