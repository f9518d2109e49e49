"""The text form of a pipeline, ``constant-folding,prune{ratio=0.5,criterion=obs}``, and the registry of pass names."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from typing import Any, Literal, Union, get_args, get_origin

from onnxprune.errors import UsageError
from onnxprune.pipeline import Pass

ENTRY_POINTS = "onnxprune.passes"


def registry() -> dict[str, str]:
    """Map every pass name to ``module:class``: the built-in passes, then those of the entry-point group."""
    names: dict[str, str] = dict(import_module("passes").PASSES)
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        names.setdefault(entry.name, entry.value)
    return names


def pass_class(name: str) -> type[Pass]:
    """Return the class registered as ``name``; :class:`UsageError` names the nearest known pass otherwise."""
    known = registry()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known passes: {', '.join(sorted(known))}"
        raise UsageError(f"there is no pass named {name!r}; {hint}")
    module, _, attribute = known[name].partition(":")
    try:
        found: type[Pass] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"pass {name!r} cannot be loaded from {known[name]!r}: {error}") from error
    return found


def parse_pipeline(text: str) -> list[Pass]:
    """Build the passes that ``text`` names, with their options; errors are :class:`UsageError`."""
    return [_build(name, options) for name, options in _items(text)]


def format_pipeline(passes: Sequence[Pass]) -> str:
    """Write passes as text that :func:`parse_pipeline` reads back; options at their default are left out."""
    return ",".join(_format(item) for item in passes)


def _format(item: Pass) -> str:
    shown = []
    for option in dataclasses.fields(typing.cast(Any, item)):
        value = getattr(item, option.name)
        if value != option.default:
            text = "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
            shown.append(f"{option.name}={text}")
    return item.name + ("{" + ",".join(shown) + "}" if shown else "")


def _items(text: str) -> Iterator[tuple[str, str]]:
    """Split at the commas outside braces; yield the name and the text between its braces."""
    for part in _split(text):
        name, brace, rest = part.strip().partition("{")
        if not name.strip():
            raise UsageError(f"the pipeline {text!r} has an empty pass name; write it like constant-folding,dead-code")
        if brace and not rest.endswith("}"):
            raise UsageError(f"the options of pass {name!r} are not closed; write them like {name}{{option=value}}")
        yield name.strip(), rest[:-1] if brace else ""


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth not in (0, 1):
            raise UsageError(f"the braces of the pipeline {text!r} do not match")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if depth:
        raise UsageError(f"the braces of the pipeline {text!r} do not match")
    return [*parts, text[start:]]


def _build(name: str, options: str) -> Pass:
    cls = pass_class(name)
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(typing.cast(Any, cls)) if field.init}
    values: dict[str, object] = {}
    for pair in options.split(",") if options.strip() else []:
        key, equals, value = (word.strip() for word in pair.partition("="))
        key = key.replace("-", "_")
        if not equals or key not in known:
            allowed = ", ".join(known) or "none"
            raise UsageError(f"pass {name!r} does not understand {pair.strip()!r}; its options: {allowed}")
        if key in values:
            raise UsageError(f"pass {name!r} is given option {key!r} twice")
        values[key] = _value(name, key, value, known[key])
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"pass {name!r}: {error}") from error


def _value(name: str, key: str, text: str, kind: Any) -> object:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        kind = next(item for item in arguments if item is not type(None))
        return _value(name, key, text, kind)
    if origin is Literal:
        if text not in arguments:
            allowed = ", ".join(map(str, arguments))
            raise UsageError(f"pass {name!r}: option {key} must be one of {allowed}, not {text!r}")
        return text
    if origin in (tuple, list):
        return tuple(_value(name, key, item, arguments[0]) for item in text.split("+") if item)
    return _scalar(name, key, text, kind)


def _scalar(name: str, key: str, text: str, kind: Any) -> object:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"pass {name!r}: option {key} must be true or false, not {text!r}")
        return text.lower() == "true"
    try:
        return kind(text)
    except (TypeError, ValueError) as error:
        expected = getattr(kind, "__name__", str(kind))
        raise UsageError(f"pass {name!r}: option {key} must be of type {expected}, not {text!r}") from error
