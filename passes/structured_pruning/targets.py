"""What each contraction of a compressed model should produce: read off the graph, before anything is run.

From a contraction's output the plan follows additions, biases, per-channel factors and BatchNormalization as long as
nothing else reads the tensors between. The tensor at the end is compared with the dense network: its rows there,
taken back through the same links with what the *compressed* network has on the other operands, are the target. So an
error that the other operand of a residual Add already carries is corrected by the branch (drift correction).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Product, products
from onnxprune.stats.arrays import Array
from onnxprune.stats.row_norms import is_divided

_INNER = 0.2  # share of the levels that must lie on either side of zero for an 8-bit tensor to count as unclipped
_MIXING = frozenset({"LayerNormalization", "Softmax", "LogSoftmax", "GroupNormalization", "LpNormalization", "LRN"})


@dataclass(frozen=True)
class Link:
    """One step from a tensor to the next: times ``scale``, plus ``shift``, plus the tensor ``other``; per channel.

    ``constant``: the initializer that holds the shift, where a bias could go.
    """

    scale: Array | None = None
    shift: Array | None = None
    other: str | None = None
    constant: str | None = None


@dataclass(frozen=True)
class Plan:
    """``terminal``: the compressed tensor that is compared with the tensor ``dense`` of the dense model.

    ``low``/``high``: the activation after the terminal is flat below and above these, so anything there will do.
    ``normalised``: each row is divided by its own deviation next, so an error counts relative to that. ``rank``: place
    in the order of solving; contractions of one ``wave`` need nothing from each other.
    """

    product: Product
    links: tuple[Link, ...]
    terminal: str
    dense: str
    low: float | None
    high: float | None
    normalised: bool
    rank: int
    wave: int

    @property
    def others(self) -> list[str]:
        return [link.other for link in self.links if link.other is not None]


def plans(
    dense: ir.Model,
    compressed: ir.Model,
    aliases: Mapping[str, str] | None = None,
    *,
    over_sums: bool = True,
) -> list[Plan]:
    """For every contraction that compression has touched, in the order in which to solve them.

    ``over_sums``: whether targets lie behind additions of other tensors, and so correct what these carry.
    """
    return list(_Planner(dense, compressed, aliases or {}, over_sums).plans())


class _Planner:
    def __init__(self, dense: ir.Model, compressed: ir.Model, aliases: Mapping[str, str], over_sums: bool) -> None:
        self._compressed, self._aliases, self._over_sums = compressed, aliases if over_sums else {}, over_sums
        self._products = products(compressed)
        self._dense_tensors, self._tensors = ir.tensors(dense), ir.tensors(compressed)
        self._outputs = {tensor.name for tensor in compressed.graph.outputs} | ir.captured(compressed)
        self._depths = self._measure_depths()
        ordered = sorted(self._products, key=lambda key: self._depths[self._products[key].output])
        self._rank = {key: place for place, key in enumerate(ordered)}
        self._latest = self._measure_latest()
        self._exact = _exact_tensors(dense, compressed, self._products)

    def _measure_depths(self) -> dict[str, int]:
        """The number of contractions on the longest way to each tensor."""
        depths: dict[str, int] = {}
        for node in self._compressed.graph.nodes:
            depth = max((depths.get(tensor.name, 0) for tensor in node.inputs), default=0)
            depth += ir.node_key(node) in self._products
            depths.update((tensor.name, depth) for tensor in node.outputs)
        return depths

    def _measure_latest(self) -> dict[str, int]:
        """The last contraction, by rank, that each tensor depends on; -1 for none."""
        latest: dict[str, int] = {}
        for node in self._compressed.graph.nodes:
            last = max((latest.get(tensor.name, -1) for tensor in node.inputs), default=-1)
            last = max(last, self._rank.get(ir.node_key(node), -1))
            latest.update((tensor.name, last) for tensor in node.outputs)
        return latest

    def plans(self) -> Iterator[Plan]:
        wave, first = 0, 0
        for key, rank in self._rank.items():
            product = self._products[key]
            if self._is_shared(product.weight):
                continue
            links, terminal = self._follow(product, rank)
            dense, low, high = self._goal(terminal)
            if dense not in self._dense_tensors or self._untouched(product, links, terminal, dense):
                continue
            needs = [product.data, *(link.other for link in links if link.other is not None)]
            if max(self._latest.get(name, -1) for name in needs) >= first:
                wave, first = wave + 1, rank
            yield Plan(product, links, terminal, dense, low, high, is_divided(self._tensors[terminal]), rank, wave)

    def _is_shared(self, weight: str) -> bool:
        """Whether something else reads the weight too: another product, an embedding that is tied to it, a subgraph."""
        return len(self._tensors[weight].outputs) > 1 or weight in self._outputs

    def _untouched(self, product: Product, links: tuple[Link, ...], terminal: str, dense: str) -> bool:
        """Whether the target is met as things are: nothing upstream has changed, and the dense tensor is the
        contraction's own.
        """
        return (
            dense == terminal
            and product.output in self._exact
            and all(link.other is None or link.other in self._exact for link in links)
        )

    def _follow(self, product: Product, rank: int) -> tuple[tuple[Link, ...], str]:
        links: list[Link] = []
        tensor = self._tensors[product.output]
        while tensor.name not in self._outputs and len(tensor.outputs) == 1:
            node = tensor.outputs[0]
            rounded = _rounded(node)
            if rounded is not None and node.outputs[0].name not in self._outputs:
                links.append(Link())
                tensor = rounded
                continue
            link = _link(node, tensor, product)
            if link is None or (link.other is not None and not self._over_sums):
                break
            if link.other is not None and self._latest.get(link.other, -1) >= rank:
                break
            if node.outputs[0].name not in self._dense_tensors and link.other is not None:
                break
            links.append(link)
            tensor = node.outputs[0]
        return tuple(links), tensor.name

    def _goal(self, terminal: str) -> tuple[str, float | None, float | None]:
        """The dense tensor that ``terminal`` stands for, and the flat parts of the activation that follows."""
        tensor = self._tensors[terminal]
        dense = self._aliases.get(terminal, terminal)
        users = ir.consumers(tensor)
        bounds = {_bounds(node) for node in users} if users and terminal not in self._outputs else {(None, None)}
        low, high = bounds.pop() if len(bounds) == 1 else (None, None)
        if len(users) == 1 and (low is not None or high is not None):
            dense = self._aliases.get(users[0].outputs[0].name, dense)
        return dense, low, high


def _bounds(node: gs.Node) -> tuple[float | None, float | None]:
    """Below and above what input the node's output no longer changes."""
    if node.op == "Relu":
        return 0.0, None
    if node.op == "QuantizeLinear" and not ir.domain(node):
        return _levels(node)
    if node.op == "Clip" and len(node.inputs) > 1:
        limits = [ir.constant(tensor) if tensor.name else None for tensor in node.inputs[1:]]
        values = [float(limit.reshape(-1)[0]) if limit is not None and limit.size else None for limit in limits]
        return values[0], values[1] if len(values) > 1 else None
    return None, None


def _levels(node: gs.Node) -> tuple[float | None, float | None]:
    """The least and the greatest number that 8 bits of one scale stand for."""
    scale, zero = (ir.constant(part) for part in node.inputs[1:3]) if len(node.inputs) > 2 else (None, None)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype not in (np.int8, np.uint8):
        return None, None
    limits, middle, step = np.iinfo(zero.dtype), float(zero.reshape(-1)[0]), float(scale.reshape(-1)[0])
    return (limits.min - middle) * step, (limits.max - middle) * step


def _rounded(node: gs.Node) -> gs.Tensor | None:
    """What stands for the node's input behind QuantizeLinear and DequantizeLinear; None where that clips one side off,
    as where an activation was folded into it.
    """
    low, high = _levels(node) if node.op == "QuantizeLinear" and not ir.domain(node) else (None, None)
    if low is None or high is None or min(-low, high) < _INNER * (high - low) or len(node.outputs[0].outputs) != 1:
        return None
    back = node.outputs[0].outputs[0]
    same = back.op == "DequantizeLinear" and _levels(back) == (low, high)
    return back.outputs[0] if same else None


def _channel_vector(values: Array, product: Product) -> Array | None:
    """A constant as one number a channel of the product's output (or one for all); None where it varies in another
    way.
    """
    if np.asarray(values).dtype.kind != "f":
        return None
    if values.size == 1:
        return np.asarray(values, np.float64).reshape(1)
    if product.channel_axis == -1 or (product.window is None and product.op == "Gemm"):
        axis = values.ndim - 1
    elif product.window is not None and values.ndim >= len(product.window.kernel) + 1:
        axis = values.ndim - len(product.window.kernel) - 1
    else:
        return None
    return np.asarray(values, np.float64).reshape(-1) if values.shape[axis] == values.size else None


def _link(node: gs.Node, tensor: gs.Tensor, product: Product) -> Link | None:
    """The node as a step from ``tensor`` to its output; None where it is none."""
    if ir.domain(node):
        return None
    if node.op == "BatchNormalization" and node.inputs[0] is tensor and not ir.attribute(node, "training_mode", 0):
        values = [ir.constant(part) for part in node.inputs[1:5]]
        if any(value is None for value in values):
            return None
        scale, bias, mean, variance = (np.asarray(value, np.float64) for value in values)
        factor = scale / np.sqrt(variance + float(ir.attribute(node, "epsilon", 1e-5)))
        return Link(factor, bias - mean * factor, constant=node.inputs[2].name)
    if node.op in ("Add", "Sub", "Mul", "Div") and len(node.inputs) == 2:
        return _binary(node, tensor, product)
    return Link() if node.op == "Identity" else None


def _binary(node: gs.Node, tensor: gs.Tensor, product: Product) -> Link | None:
    place = 0 if node.inputs[0] is tensor else 1
    other = node.inputs[1 - place]
    if other is tensor:
        return None
    values = ir.constant(other)
    if values is None:
        return Link(other=other.name) if node.op == "Add" else None
    vector = _channel_vector(values, product)
    if vector is None:
        return None
    if node.op == "Add":
        return Link(shift=vector, constant=other.name if values.size > 1 else None)
    if node.op == "Mul":
        return Link(scale=vector)
    if place == 0:
        return Link(shift=-vector) if node.op == "Sub" else Link(scale=1 / vector) if (vector != 0).all() else None
    return Link(scale=np.full(1, -1.0), shift=vector) if node.op == "Sub" else None


def _exact_tensors(dense: ir.Model, compressed: ir.Model, found: Mapping[str, Product]) -> set[str]:
    """Tensors of the compressed model that hold, in the channels that are left, just what the dense model has."""
    before = {ir.node_key(node): node for node in dense.graph.nodes}
    exact = {tensor.name for tensor in compressed.graph.inputs} | set(ir.initializers(compressed))
    for node in compressed.graph.nodes:
        key = ir.node_key(node)
        old, product = before.get(key), found.get(key)
        names = [tensor.name for tensor in node.inputs]
        same = old is not None and old.op == node.op and [tensor.name for tensor in old.inputs] == names
        if not same or not all(name in exact for name in names if name):
            continue
        if product is not None:
            assert old is not None
            slot = names.index(product.weight)
            whole = old.inputs[slot].shape[product.input_axis] == node.inputs[slot].shape[product.input_axis]
        else:
            assert old is not None
            mixing = node.op in _MIXING or node.op.startswith("Reduce")
            whole = not mixing or _unchanged(old.inputs[0].shape, node.inputs[0].shape)
        if whole:
            exact.update(tensor.name for tensor in node.outputs)
    return exact


def _unchanged(before: Sequence[object] | None, after: Sequence[object] | None) -> bool:
    """Whether two shapes are known and agree in every fixed size."""
    if before is None or after is None or len(before) != len(after):
        return False
    fixed = [(a, b) for a, b in zip(before, after, strict=True) if isinstance(a, int) or isinstance(b, int)]
    return all(a == b for a, b in fixed)
