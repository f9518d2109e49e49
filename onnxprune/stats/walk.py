"""Runs a model part by part over all samples, keeping between parts only the tensors that are still needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy

import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.runner import Runner, needed, reads


class Walk:
    """A position in the model for every call of ``feeds``. Weights may change in nodes that have not run yet; nodes
    may not.
    """

    def __init__(self, model: ir.Model, feeds: Feeds, *, batch: int = 32, threads: int = 0) -> None:
        self._threads = threads
        self._live: list[dict[str, Array]] = [dict(call) for call in feeds.calls(batch)]
        self._enter(model, ran=set())

    def _enter(self, model: ir.Model, ran: Collection[str]) -> None:
        """Goes on in ``model``, the nodes of which with the keys ``ran`` have run."""
        nodes = {ir.node_key(node): node for node in model.graph.nodes}
        self._model = model
        self._left = {key: reads(node) for key, node in nodes.items() if key not in ran}
        self._made = {tensor.name: key for key, node in nodes.items() for tensor in node.outputs}

    def __len__(self) -> int:
        """Number of calls."""
        return len(self._live)

    def fork(self, model: ir.Model, name: str) -> Walk | None:
        """Runs what the tensor needs, and returns the same position in a ``model`` that differs in nothing so far but
        weights that nothing has read; None, with nothing run, where its nodes differ or the tensor has been passed.
        """
        given = set(self._live[0])
        if name not in given and not self.is_ahead(name):
            return None
        theirs = {ir.node_key(node): node for node in model.graph.nodes}
        coming, _ = needed(self._model, [name], given)
        past = [node for node in self._model.graph.nodes if ir.node_key(node) not in self._left]
        ran = {ir.node_key(node): node for node in (*past, *coming)}
        if any(key not in theirs or _joined(theirs[key]) != _joined(node) for key, node in ran.items()):
            return None
        if coming:
            for _ in self.advance([name]):
                pass
        other = copy(self)
        other._live = [dict(live) for live in self._live]
        other._enter(model, ran)
        return other

    def advance(self, wanted: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Runs what ``wanted`` needs, once, and yields these tensors for every call; the iterator must be exhausted.

        Raises ModelError for a tensor that an earlier part has passed and nothing needed any more.
        """
        given = set(self._live[0]) if self._live else set()
        nodes, _ = needed(self._model, wanted, given)
        ran = {ir.node_key(node) for node in nodes}
        passed = ran - self._left.keys()
        if passed:
            raise ModelError(f"tensor {sorted(passed)[0]!r} has been passed already")
        for key in ran:
            del self._left[key]
        later = set[str]().union(*self._left.values())
        outputs = {tensor.name for node in nodes for tensor in node.outputs if tensor.name}
        keep = list(dict.fromkeys([*wanted, *sorted(outputs & later)]))
        dtypes = {name: array.dtype for name, array in self._live[0].items()} if self._live else {}
        runner = Runner(self._model, keep, sorted(given), dtypes=dtypes, threads=self._threads)
        for place, live in enumerate(self._live):
            found = runner(live)
            yield {name: found[name] for name in wanted}
            self._live[place] = {name: array for name, array in (live | found).items() if name in later}

    def is_ahead(self, name: str) -> bool:
        """Whether the tensor has not been computed yet."""
        return name in self._made and self._made[name] in self._left

    def put(self, name: str, values: Sequence[Array]) -> None:
        """Replaces a tensor that later parts still read, with one array a call."""
        for live, value in zip(self._live, values, strict=True):
            if name in live:
                live[name] = value


def _joined(node: gs.Node) -> tuple[list[str], list[str]]:
    """Names of what a node reads and yields."""
    return [tensor.name for tensor in node.inputs], [tensor.name for tensor in node.outputs]


def live_bytes(model: ir.Model, shapes: Mapping[str, Sequence[int]], at: Collection[str] | None = None) -> int:
    """The most bytes of activations alive before any node, for one call of these ``shapes`` (4 bytes an element).

    ``at``: keys of the nodes to look at, such as those where a :class:`Walk` stops; default all.
    """
    last: dict[str, int] = {}
    for place, node in enumerate(model.graph.nodes):
        last.update((name, place) for name in reads(node))
    constants = ir.initializers(model)
    size = {name: 4 * math.prod(shape) for name, shape in shapes.items() if name not in constants}
    ends: dict[int, int] = {}
    for name, place in last.items():
        ends[place] = ends.get(place, 0) + size.get(name, 0)
    now = most = sum(size.get(tensor.name, 0) for tensor in ir.feed_inputs(model))
    for place, node in enumerate(model.graph.nodes):
        if at is None or ir.node_key(node) in at:
            most = max(most, now)
        now += sum(size.get(tensor.name, 0) for tensor in node.outputs if tensor.name in last)
        now -= ends.get(place, 0)
    return most
