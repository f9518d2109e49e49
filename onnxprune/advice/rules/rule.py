"""What a rule is, and the conditions that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from onnxprune.advice.facts import Facts

Section = Literal["try", "cannot", "help"]
COMPRESSION, QUANTIZATION, RESULTS = "docs/compression.md", "docs/quantization.md", "benchmarks/RESULTS.md"

HARD = 0.5  # targets under this cost accuracy without fast 8-bit arithmetic


@dataclass(frozen=True)
class Rule:
    """One row. when: whether it holds. says: the advice, with the model's numbers. because: why, in general. source:
    who says so. gives: the option or command that it is about, "" for none.
    """

    name: str
    section: Section
    when: Callable[[Facts], bool]
    says: Callable[[Facts], str]
    because: str
    source: str
    gives: str = ""


def searchable(f: Facts) -> bool:
    """Whether anything can leave that is also priced."""
    return f.pruning.usable > 0 or f.pruning.branches > 0


def wants(f: Facts, under: float) -> bool:
    """Whether a latency ratio under this one is asked for, and lossless passes do not give it."""
    return f.target is not None and f.target < under and not met_already(f)


def met_already(f: Facts) -> bool:
    """Whether the lossless form meets the target."""
    return f.target is not None and (f.latency.lossless or 1.0) <= f.target


def transformer(f: Facts) -> bool:
    """Whether most work is done in the products of a transformer."""
    return f.graph.family == "transformer"


def float_graph(f: Facts) -> bool:
    """Whether the model is float32 and has 8-bit forms."""
    return not f.graph.quantized and f.graph.int8 > 0


def few_rows(f: Facts) -> bool:
    """Most products meet so few rows that reading their weights takes the time: fewer bytes are faster anywhere."""
    return f.graph.loose > HARD and f.graph.dynamic > HARD
