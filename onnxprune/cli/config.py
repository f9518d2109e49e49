"""Options from a TOML file: the names of the long options, with dashes or underscores."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from onnxprune.cli.paths import check_input
from onnxprune.errors import UsageError

_NOT_HERE = {"config", "debug"}


def load(path: Path, known: Mapping[str, click.Option], ctx: click.Context) -> dict[str, Any]:
    """Returns the file's options, converted as the command line converts them.

    Raises UsageError for what is not TOML, not an option, or not a value that the option takes.
    """
    check_input(path, "configuration")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration {path} is not TOML: {error}") from error
    names = {flag.lstrip("-").replace("-", "_"): option for option in known.values() for flag in option.opts}
    found: dict[str, Any] = {}
    for key, value in table.items():
        option = names.get(key.replace("-", "_"))
        if option is None or option.name in _NOT_HERE:
            raise UsageError(f"configuration {path}: {key!r} is not an option that it can set")
        assert option.name is not None
        found[option.name] = _converted(option, value, ctx, f"configuration {path}: {key}")
    return found


def _converted(option: click.Option, value: Any, ctx: click.Context, where: str) -> Any:
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false")
        return value
    values = value if option.multiple and isinstance(value, list) else [value]
    if any(isinstance(each, dict | list | bool) for each in values):
        raise UsageError(f"{where} must be a string or a number")
    texts = [str(each) for each in values]
    return option.type_cast_value(ctx, texts if option.multiple else texts[0])
