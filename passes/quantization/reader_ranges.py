"""Ranges of activations by what they do to the contractions that read them.

A tensor's own rounding error says little: a clipped outlier may meet a large weight or none. So each candidate range is
judged by the change of the readers' outputs on sampled rows: step size against clipping, as in Nagel et al., arXiv
2106.08295, section 3.1, with the reader's output in place of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.stats import Feeds, run
from onnxprune.stats.columns import Sampler, columns, spatial
from onnxprune.stats.drift import padding
from onnxprune.stats.product import Product, products
from passes.quantization.ranges import Observed
from passes.quantization.selection import CONTRACTIONS, MOVEMENT, data_inputs

Range = tuple[float, float]

SAMPLES = 32
ROWS = 256
"""Rows of each contraction, over all samples."""
BYTES = 256 << 20
"""Sampled rows kept at once, at most."""
_SKETCH = 48
"""Outputs that stand for all of a reader: random sums keep the norm of an error (Johnson and Lindenstrauss)."""
SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.22, 0.15)


@dataclass
class Reader:
    """What reads a tensor: sampled rows (groups, rows, columns), a sketch of the weights (groups, outputs, columns;
    None: the rows themselves are judged) and the energy of the outputs.
    """

    rows: np.ndarray
    weight: np.ndarray | None
    energy: float = field(init=False)

    def __post_init__(self) -> None:
        self.energy = _variance(self._products(self.rows))

    def error(self, low: float, high: float, levels: int = 255) -> float:
        """Squared relative error of the outputs about their mean, which biases restore, for rows rounded in a range."""
        change = _variance(self._products(rounded(self.rows, low, high, levels) - self.rows))
        return change / self.energy if self.energy > 0.0 else change

    def _products(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.weight is None else rows @ self.weight.swapaxes(1, 2)


def _variance(values: np.ndarray) -> float:
    return float(np.square(values - values.mean(1, keepdims=True)).sum(dtype=np.float64))


def rounded(values: np.ndarray, low: float, high: float, levels: int = 255) -> np.ndarray:
    """Values after the 8-bit grid that holds zero, between low and high."""
    step = (high - low) / levels
    if step <= 0.0:
        return np.zeros_like(values)
    first = np.rint(low / step)
    return (np.clip(np.rint(values / np.float32(step)), first, first + levels) * np.float32(step)).astype(np.float32)


def choose(
    prepared: ir.Model, chosen: Sequence[gs.Node], seen: Mapping[str, Observed], feeds: Feeds, symmetric: bool
) -> dict[str, Range]:
    """The range of every observed tensor: least summed error of the contractions that take its values, and of the
    tensor itself where other operators read it too.
    """
    readers = _readers(prepared, chosen, seen, feeds)
    return {name: best(readers.get(name, []), value, symmetric) for name, value in seen.items()}


def best(readers: Sequence[Reader], seen: Observed, symmetric: bool, shrinks: Sequence[float] = SHRINKS) -> Range:
    """The range of least error: both ends shrink together, then each alone."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if not readers or low == high:
        return low, high

    def pick(ranges: Iterable[Range]) -> Range:
        return min(ranges, key=lambda ends: sum(reader.error(*ends) for reader in readers))

    if symmetric:
        bound = max(-low, high)
        return pick((-bound * s, bound * s) for s in SHRINKS)
    found = pick((low * s, high * s) for s in SHRINKS)
    if low < 0.0 < high:
        found = pick([found, *((low * s, found[1]) for s in SHRINKS)])
        found = pick([found, *((found[0], high * s) for s in SHRINKS)])
    return found


def _readers(
    prepared: ir.Model, chosen: Sequence[gs.Node], seen: Mapping[str, Observed], feeds: Feeds
) -> dict[str, list[Reader]]:
    """Per tensor that decides a scale: the contractions that read its values, directly or behind movement, and its own
    sample where anything else does.
    """
    roots = scale_roots(chosen)
    known = products(prepared)
    found: dict[str, list[Reader]] = {}
    wanted = {ir.node_key(node): known[ir.node_key(node)] for node in chosen if ir.node_key(node) in known}
    for key, rows in sampled_rows(prepared, list(wanted.values()), feeds).items():
        root = roots.get(wanted[key].data, wanted[key].data)
        weight = np.asarray(ir.initializers(prepared)[wanted[key].weight].values)
        found.setdefault(root, []).append(Reader(rows, sketch(wanted[key].matrix(weight))))
    others = {tensor.name for node in chosen if node.op not in CONTRACTIONS for tensor in data_inputs(node)}
    others -= {name for name, root in roots.items() if name != root}
    moved = {tensor.name for node in chosen if node.op in MOVEMENT for tensor in data_inputs(node)}
    for name, value in seen.items():
        if value.sample.size and (name in others - moved or name not in found):
            found.setdefault(name, []).append(Reader(value.sample.reshape(1, -1, 1), None))
    return found


def scale_roots(chosen: Sequence[gs.Node]) -> dict[str, str]:
    """Outputs of movement -> the tensor whose scale they carry."""
    roots: dict[str, str] = {}
    for node in chosen:
        if node.op in MOVEMENT:
            source = node.inputs[0].name
            roots.update((tensor.name, roots.get(source, source)) for tensor in node.outputs)
    return roots


def sketch(matrix: np.ndarray) -> np.ndarray:
    """Random sums of a weight's outputs, (groups, outputs, columns), that keep norms of changes on average."""
    outputs = matrix.shape[1]
    if outputs <= _SKETCH:
        return matrix.astype(np.float32)
    signs = np.random.default_rng(0).choice(np.array([-1.0, 1.0]), (_SKETCH, outputs)) / math.sqrt(_SKETCH)
    return np.asarray(np.einsum("so,goc->gsc", signs, matrix), np.float32)


def sampled_rows(model: ir.Model, wanted: Sequence[Product], feeds: Feeds) -> dict[str, np.ndarray]:
    """Key of each contraction -> sampled rows of what it reads, (groups, rows, columns); padding is left out."""
    if not wanted:
        return {}
    feeds = feeds.spread(SAMPLES)
    size = sum(4 * product.size * product.groups for product in wanted)
    sampler = Sampler(max(32, min(ROWS, BYTES // size)), len(feeds), 0)
    names = sorted({product.data for product in wanted})
    parts: dict[str, list[np.ndarray]] = {product.node: [] for product in wanted}
    calls = zip(run(model, feeds, names, batch=8, threads=1), padding(model, feeds, 8), strict=True)
    for call, (tensors, mask) in enumerate(calls):
        for product in wanted:
            data = tensors[product.data]
            rows = sampler.rows(call, *spatial(product, data), mask)
            if len(rows):
                parts[product.node].append(columns(product, data, rows))
    return {key: np.concatenate(blocks, 1) for key, blocks in parts.items() if blocks}
