"""What `onnxprune analyze` shows, as plain data: groups and what is frozen, the rules of all nodes, or one explanation.

The schema is in docs/analyze.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.progress import Progress

if TYPE_CHECKING:
    from onnxprune.api.analysis import Examined
    from onnxprune.channels import AxisKey, Group, Share, Shares

SCHEMA_VERSION = 1
_CANONICAL = ("freeze_initializers", "keep_batchnorm")


def describe(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Returns the view that the request asks for, and writes the drawing where it asks for one."""
    from onnxprune.api import analysis

    options = request["options"]
    if request["view"] == "rules":
        lines = analysis.rules(request["model"], **{name: options[name] for name in _CANONICAL})
        return {"schema_version": SCHEMA_VERSION, "view": "rules", "lines": lines}
    found = analysis.examine(request["model"], progress=progress, **options)
    if request["dot"] is not None:
        Path(request["dot"]).write_text(found.graph.dot(found.shares), encoding="utf-8")
    if request["view"] == "why":
        lines = found.why(*request["axis"])
        return {"schema_version": SCHEMA_VERSION, "view": "why", "lines": lines}
    return _groups(found, None if found.graph.groups else analysis.largest_cause(found.shares))


def _groups(found: Examined, nothing: str | None) -> dict[str, Any]:
    """Returns all groups and shares. `nothing`: why there is no group."""
    shares, inputs = found.shares, found.input_shapes
    return {
        "schema_version": SCHEMA_VERSION,
        "view": "groups",
        "model": {
            "nodes": found.nodes,
            "params": shares.params,
            "macs": shares.macs,
            "input_shapes": None if inputs is None else {name: list(shape) for name, shape in inputs.items()},
        },
        "prunable": _share(shares.prunable, shares),
        "least": _share(shares.least, shares),
        "nothing": nothing,
        "groups": [_group(group, shares) for group in found.graph.groups],
        "frozen": [
            {
                "reason": each.reason,
                "share": _share(each.share, shares),
                "axes": each.axes,
                "nodes": each.nodes,
                "example": each.example,
            }
            for each in shares.kept
        ],
    }


def _share(share: Share, shares: Shares) -> dict[str, float | None]:
    """Returns the parts of all MACs and parameters; null where the model has none."""
    return {
        "macs": round(share.macs, 6) if shares.macs else None,
        "params": round(share.params, 6) if shares.params else None,
    }


def _group(group: Group, shares: Shares) -> dict[str, Any]:
    consumers = list(dict.fromkeys((each.tensor, each.axis) for each in group.contractions))
    return {
        "name": group.name,
        "kind": group.kind,
        "width": group.width,
        "elements": int((group.owner[group.producers[0]] >= 0).sum()),
        "producers": [_key(key) for key in group.producers],
        "consumers": [_key(key) for key in consumers],
        "exact": group.exact,
        "min_keep": group.min_keep,
        "multiple_of": group.multiple_of,
        "share": _share(shares.groups[group.name], shares),
        "units": {_key(key): _units(group, key) for key in dict.fromkeys((*group.producers, *consumers))},
    }


def _key(key: AxisKey) -> str:
    return f"{key[0]}:{key[1]}"


def _units(group: Group, key: AxisKey) -> list[int] | None:
    """Returns the unit of each element of an axis, -1 for none; None where element j is unit j."""
    owner = group.owner[key].tolist()
    return None if owner == list(range(group.width)) else owner
