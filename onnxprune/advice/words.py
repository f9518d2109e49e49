"""Numbers of the evidence in words."""

from __future__ import annotations

from onnxprune.advice.facts import Facts, Pruning
from onnxprune.units import count_text, time_text

_PLURAL = {"head_dim": "head dimensions", "query_head": "query heads", "hidden": "hidden units"}
_CAUSES = 3


def percent(share: float) -> str:
    """A share in whole per cent; those that would read as none or all of it are said so."""
    if 0 < share < 0.01:
        return "under 1 %"
    return f"{min(share, 0.999) * 100:.1f} %" if 0.99 < share < 1 else f"{share * 100:.0f} %"


def count(number: int, what: str) -> str:
    """`1 group`, `12 groups`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def kinds(pruning: Pruning) -> str:
    """What can leave by kind: `channels (30 groups, 1072 units) and heads (...)`."""
    parts = [
        f"{_PLURAL.get(kind.name, kind.name + 's')} ({count(kind.groups, 'group')}, {kind.units:,} units)"
        for kind in pruning.kinds
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 2 else parts)


def causes(pruning: Pruning) -> str:
    """What keeps most of the MACs, the largest first."""
    large = [kept for kept in pruning.kept if kept.share.macs >= 0.005][:_CAUSES]
    rest = 1 - pruning.prunable.macs - sum(kept.share.macs for kept in large)
    words = [f"{kept.reason} {percent(kept.share.macs)}" for kept in large]
    return "; ".join([*words, f"the least of each group and others {percent(rest)}"] if rest >= 0.005 else words)


def work(facts: Facts) -> str:
    """`7 us for 17.4 K MACs`."""
    return f"{time_text(facts.latency.seconds)} for {count_text(facts.graph.macs)} MACs"
