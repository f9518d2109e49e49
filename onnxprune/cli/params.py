"""Types of options, and the options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from onnxprune import units
from onnxprune.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

PRECISIONS = ("fp32", "fp16", "int8")
EFFORTS = ("fast", "normal", "best")


class Parsed(click.ParamType[Any]):
    """An option whose text a function reads; its UsageError, with the option's name before it, is the one line."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            option = param.opts[-1] if isinstance(param, click.Option) else self.name
            raise UsageError(f"{option}: {error}") from error


class Pairs(click.ParamType[Any]):
    """`NAME=VALUE`."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return key, text


def _path(text: str) -> Path:
    if "\0" in text or not text:
        raise UsageError(f"{text!r} is not a path")
    return Path(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise UsageError(f"{text!r} is not a number of 0 or more")
    return number


def _share(text: str) -> float:
    number = _number(text)
    if number >= 1:
        raise UsageError(f"{text!r} is not a fraction of 0 or more and under 1, such as 0.3")
    return number


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is not a regular expression: {error}") from error
    return text


def _provider(text: str) -> str:
    from runtime_bench.target import aliases, provider_name

    return aliases([provider_name(text)])[0]


def _precisions(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        raise UsageError(f"unknown precision {unknown[0]!r}; known are {', '.join(PRECISIONS)}")
    return names


FILE = Parsed("FILE", _path)
NUMBER = Parsed("D", _number)
SHARE = Parsed("0.3", _share)
REGEX = Parsed("REGEX", _regex)
PROVIDER = Parsed("NAME", _provider)
PRECISION_LIST = Parsed("fp32,fp16,int8", _precisions)
SIZE = Parsed("2MB|0.5x", units.parse_size)
MACS = Parsed("100M|0.5x", units.parse_macs)
TARGET = Parsed("5ms|0.5x", units.parse_target)
RATIO = Parsed("0.6x", lambda text: units.parse_ratio(text, "MACs"))
MEMORY = Parsed("8GB", units.parse_memory)
DURATION = Parsed("30m", units.parse_duration)
SHAPE = Parsed("NAME:1,3,224,224", units.parse_input_shape)
POSITIVE = click.IntRange(min=1)


def combined(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Returns one decorator for several options, shown in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


running = combined(
    click.option("--max-memory", type=MEMORY, metavar="8GB", help="Address space for the work. Default: by size."),
    click.option("--timeout", type=DURATION, metavar="30m", help="Stop after this time, with exit code 7."),
    click.option("-v", "--verbose", is_flag=True, help="Log every step as a line on stderr."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("--debug", is_flag=True, help="Show tracebacks and the output of native code."),
)

input_shape = click.option(
    "--input-shape", "input_shapes", multiple=True, type=SHAPE, metavar="NAME:1,3,224,224",
    help="Shape of one input at which the model is measured or its MACs are counted; repeatable.",
)  # fmt: skip

measuring = combined(
    click.option(
        "--ep", "eps", type=PROVIDER, multiple=True, metavar="EP", help="Execution provider, repeatable. Default: cpu."
    ),
    click.option(
        "--ep-option", "ep_options", multiple=True, type=Pairs(), metavar="K=V", help="Option of the providers."
    ),
    click.option("--threads", type=POSITIVE, metavar="N", help="Intra-op threads. Default: the physical cores."),
    click.option("--batch", type=POSITIVE, metavar="N", help="Batch size at which latency is measured. Default: 1."),
    input_shape,
)  # fmt: skip

calibration = click.option(
    "--calib-data", type=FILE, metavar="NPZ|DIR", help="Typical inputs: an .npz, or a folder of .npy or .npz files."
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all randomness.")
report = click.option("--report", type=FILE, metavar="FILE.json", help="Write the full report as JSON.")
output = click.option("-o", "--output", type=FILE, metavar="FILE", help="Default: STEM.onnxprune.onnx, in this folder.")
effort = click.option(
    "--effort", type=click.Choice(EFFORTS), default="normal", show_default=True, help="How long to search."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
freeze = click.option("--freeze", type=REGEX, metavar="REGEX", help="Leave tensors alone whose name matches.")
granularity = click.option(
    "--granularity", type=click.Choice(["head", "head_dim"]), default="head", show_default=True,
    help="What attention is pruned by: whole heads, or their dimensions.",
)  # fmt: skip
canonical = combined(
    click.option("--freeze-initializers", is_flag=True, help="Make overridable initializers constants."),
    click.option("--keep-batchnorm", is_flag=True, help="Leave BatchNormalization nodes in place."),
)
