"""The specification that `prune --spec` reads: for each group by name how many units stay, or exactly which.

    {"conv1.weight:0": 12, "fc1.weight:0": [0, 3, 4, 7]}        or that under the key "keep"

Groups that it leaves out stay whole. Names and widths are those that `onnxprune analyze --format json` lists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onnxprune.channels import ChannelGraph, Group
from onnxprune.errors import DataError, UsageError

_FORM = 'a specification is {"group name": width or [units that stay]}, or that under the key "keep"'


class Specification(NamedTuple):
    """What stays: a number of units that a criterion chooses, or the units themselves as a mask, by group."""

    widths: dict[str, int]
    masks: dict[str, np.ndarray]


def read(source: str | Path | Mapping[str, Any], graph: ChannelGraph) -> Specification:
    """The specification in a JSON file or a mapping, checked against the groups of a model.

    Raises UsageError where there is no such file or group, DataError for anything in it that is not a specification.
    """
    wanted = source if isinstance(source, Mapping) else _parsed(Path(source))
    if isinstance(wanted, Mapping) and "keep" in wanted:
        beside = [name for name in wanted if name != "keep"]
        if beside:
            raise DataError(f"{_FORM}; beside that key stands {beside[0]!r}")
        wanted = wanted["keep"]
    if not isinstance(wanted, Mapping):
        raise DataError(_FORM)
    found = Specification({}, {})
    for name, units in wanted.items():
        group = graph.group(name)
        if _whole(units):
            found.widths[name] = _width(group, int(units), "a width")
        else:
            found.masks[name] = _mask(group, units)
    return found


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique, parse_constant=_refused)
    except OSError as error:
        raise UsageError(f"cannot read the specification {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"specification {path} is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"the specification names {twice[0]!r} twice")
    return dict(pairs)


def _refused(text: str) -> Any:
    raise DataError(f"{_FORM}; {text} is no number of JSON")


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _width(group: Group, width: int, what: str) -> int:
    if not group.min_keep <= width <= group.width:
        raise DataError(f"{group.name}: {what} must be {group.min_keep} to {group.width}, not {width}")
    if width % group.multiple_of and width < group.width:
        raise DataError(f"{group.name}: {what} must be a multiple of {group.multiple_of}, not {width}")
    return width


def _mask(group: Group, units: Any) -> np.ndarray:
    values = units.tolist() if isinstance(units, np.ndarray) else units
    if not isinstance(values, Sequence) or isinstance(values, str) or not all(map(_whole, values)):
        raise DataError(f"{group.name}: give a width, or a list of units between 0 and {group.width - 1}")
    outside = [unit for unit in values if not 0 <= unit < group.width]
    if outside:
        raise DataError(f"{group.name}: unit {outside[0]} is not between 0 and {group.width - 1}")
    twice = [unit for unit, count in Counter(values).items() if count > 1]
    if twice:
        raise DataError(f"{group.name}: unit {twice[0]} is listed twice")
    _width(group, len(values), "the number of units")
    mask = np.zeros(group.width, bool)
    mask[list(values)] = True
    return mask
