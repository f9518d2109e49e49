"""The evidence that rules speak about: numbers and names, no judgement. Shares are parts of all multiply-accumulates
(MACs) of the canonical form, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.channels import Kept, Share

CALL_S, NODE_S = 8e-6, 0.8e-6
"""What a run of a session and each of its nodes take at least, by chains of tiny operators (docs/advise.md)."""


@dataclass(frozen=True)
class Graph:
    """What the model is. ops: share of the MACs by sort of operator (`families.SORTS`). int8, dynamic: shares that can
    run in static and in dynamic int8. intensity: median over the MACs of the MACs that one byte moved serves; loose:
    share of the MACs under `gather.LOOSE` of these. heavy: products hold most of the weights, and those are many.
    float_type: type of most of the weights. overridable: weights that are graph inputs. inputs: shapes that latency is
    measured at. open_inputs: those with sizes that nobody gave, the batch aside.
    """

    family: str
    nodes: int
    opset: int
    params: int
    macs: int
    ops: Mapping[str, float]
    float_type: str
    quantized: bool
    int8: float
    dynamic: float
    intensity: float
    loose: float
    heavy: bool
    overridable: int
    inputs: Mapping[str, tuple[int, ...]]
    open_inputs: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """Groups of one kind (channel, head, neuron, ...): how many, their units, and the widest one's."""

    name: str
    groups: int
    units: int
    widest: int


@dataclass(frozen=True)
class Product:
    """One contraction: groups of its weight, columns of a group's matrix, output positions of one sample."""

    groups: int
    columns: int
    positions: int


@dataclass(frozen=True)
class Pruning:
    """What can leave. kept: what freezes the rest, the largest first. hidden: groups inside subgraphs. branches: that
    can be dropped whole; branch_macs: share of the MACs inside of them. products: the contractions with a constant
    weight.
    """

    kinds: tuple[Kind, ...]
    prunable: Share
    kept: tuple[Kept, ...]
    nothing: str
    hidden: int
    branches: int
    branch_macs: float
    products: tuple[Product, ...]

    @property
    def groups(self) -> int:
        return sum(kind.groups for kind in self.kinds)

    @property
    def usable(self) -> int:
        """Groups whose latency can be measured."""
        return self.groups - self.hidden

    @property
    def units(self) -> int:
        return sum(kind.units for kind in self.kinds)

    @property
    def floor(self) -> float:
        """Share of the MACs that stays whatever is pruned and dropped: never more than what really stays."""
        return max(0.0, 1.0 - self.prunable.macs - self.branch_macs)


@dataclass(frozen=True)
class Data:
    """Calibration data: whether it was given, and how many samples (or calls) there are. real: what a sample is without
    its padding, as a share of one that latency is measured on.
    """

    given: bool
    samples: int
    real: float = 1.0


@dataclass(frozen=True)
class Host:
    """Where it runs. instructions: those that matter for matrix products. saturates: whether 8-bit sums do."""

    cpu: str
    cores: int
    memory_gib: int | None
    threads: int
    threads_given: bool
    eps: tuple[str, ...]
    available: tuple[str, ...]
    instructions: tuple[str, ...]
    saturates: bool

    @property
    def fast_int8(self) -> bool:
        """Whether the processor multiplies 8-bit integers faster than floats."""
        return bool({"VNNI", "AMX", "DOTPROD"} & set(self.instructions))


@dataclass(frozen=True)
class Latency:
    """Of the input model on the slowest EP in seconds, and what the lossless passes alone leave of it (None: not
    measured, since one run takes too long).
    """

    seconds: float
    lossless: float | None


@dataclass(frozen=True)
class Facts:
    """All evidence. target: latency asked for as a ratio of the input model's, None where none was asked for."""

    graph: Graph
    pruning: Pruning
    data: Data
    host: Host
    latency: Latency
    target: float | None
    target_text: str = ""

    @property
    def fixed_share(self) -> float:
        """About the part of the latency that calls and nodes take by themselves, whatever they compute."""
        return (CALL_S + NODE_S * self.graph.nodes) / self.latency.seconds
