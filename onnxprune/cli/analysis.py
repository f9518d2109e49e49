"""What `onnxprune analyze` shows, as plain data: groups and frozen axes, the rules of all nodes, or one explanation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxprune.progress import Progress

if TYPE_CHECKING:
    from onnxprune.channels import ChannelGraph, Group

_CANONICAL = ("freeze_initializers", "keep_batchnorm")


def describe(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Returns the view that the request asks for."""
    from onnxprune import api

    options = request["options"]
    if request["view"] == "rules":
        return {"view": "rules", "lines": api.rules(request["model"], **{name: options[name] for name in _CANONICAL})}
    graph = api.analyze(request["model"], progress=progress, **options)
    if request["view"] == "why":
        tensor, axis = request["axis"]
        return {"view": "why", "lines": graph.explain(tensor, axis)}
    return {"view": "groups", "groups": [_group(group) for group in graph.groups], **_frozen(graph)}


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "kind": group.kind,
        "width": group.width,
        "producers": [f"{tensor}:{axis}" for tensor, axis in group.producers],
        "consumers": [f"{each.tensor}:{each.axis}" for each in group.contractions],
        "exact": group.exact,
        "min_keep": group.min_keep,
        "multiple_of": group.multiple_of,
    }


def _frozen(graph: ChannelGraph) -> dict[str, Any]:
    """Returns the frozen axes by reason, the most frequent first, and their share of the producing axes."""
    reasons = Counter(each.reason for each in graph.frozen)
    example = {each.reason: f"{each.axis[0]}:{each.axis[1]}" for each in reversed(graph.frozen)}
    free = sum(len(group.producers) for group in graph.groups)
    total = free + len(graph.frozen)
    rows = [{"reason": reason, "axes": n, "example": example[reason]} for reason, n in reasons.most_common()]
    return {"frozen": rows, "frozen_share": len(graph.frozen) / total if total else 0.0}
