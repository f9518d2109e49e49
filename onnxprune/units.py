"""Quantities and names as users write them: `5ms`, `0.5x`, `8GB`, `30m`. A number without a unit is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.errors import UsageError

_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?nan|[+-]?inf(?:inity)?"
_NUMBER = re.compile(rf"\s*({_DIGITS})\s*([A-Za-zµμ]*)\s*\Z", re.I)
_TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0}
_SPANS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_COUNTS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Target:
    """A latency target: an absolute P50 in `seconds`, or a `ratio` of the baseline's P50; the other one is None."""

    text: str
    seconds: float | None = None
    ratio: float | None = None

    @property
    def kind(self) -> str:
        return "ratio" if self.seconds is None else "seconds"

    @property
    def value(self) -> float:
        """Seconds, or the ratio of the baseline."""
        return (self.ratio if self.seconds is None else self.seconds) or 0.0

    def in_seconds(self, baseline: float) -> float:
        """Returns the target in seconds, for a baseline P50 in seconds."""
        return self.seconds if self.seconds is not None else self.value * baseline


@dataclass(frozen=True)
class Amount:
    """What a model may take of something: an absolute `amount`, or a `ratio` of the input model's; the other one is
    None.
    """

    text: str
    amount: float | None = None
    ratio: float | None = None

    @property
    def value(self) -> float:
        """The amount, or the ratio of the input model's."""
        return (self.ratio if self.amount is None else self.amount) or 0.0

    def of(self, baseline: float) -> float:
        """The amount, where the input model takes `baseline`."""
        return self.amount if self.amount is not None else self.value * baseline


def _split(what: str, text: str, forms: str) -> tuple[float, str]:
    match = _NUMBER.match(text)
    if match is None:
        raise UsageError(f"{what} {text!r} is not a number with a unit; write it like {forms}")
    number, unit = float(match[1]), match[2].lower()
    if not math.isfinite(number) or number <= 0:
        raise UsageError(f"{what} {text!r} must be a finite number above zero; write it like {forms}")
    if not unit:
        raise UsageError(f"{what} {text!r} has no unit; write it like {forms}")
    return number, unit


def _scaled(what: str, text: str, units: Mapping[str, float], forms: str) -> float:
    number, unit = _split(what, text, forms)
    if unit not in units:
        raise UsageError(f"{what} {text!r} has an unknown unit {unit!r}; write it like {forms}")
    return number * units[unit]


def _fraction(what: str, text: str, number: float) -> float:
    if number >= 1:
        raise UsageError(f"{what} {text!r} must be under 1x: 0.5x means half of the original")
    return number


def numbered(path: Path, number: int) -> Path:
    """The file of one model of a front: `STEM-1.onnx`, `STEM-2.onnx` for `STEM.onnx`."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def parse_target(text: str) -> Target:
    """Returns the latency target that `text` names: `5ms`, `800us`, `0.002s`, or `0.5x` of the baseline.

    Raises UsageError where it has no unit, is not above zero, or is a ratio of 1 or more.
    """
    what, forms = "target latency", "5ms, 800us or 0.5x"
    number, unit = _split(what, text, forms)
    if unit == "x":
        return Target(text.strip(), ratio=_fraction(what, text, number))
    return Target(text.strip(), seconds=_scaled(what, text, _TIMES, forms))


def _amount(what: str, text: str, units: Mapping[str, float], forms: str) -> Amount:
    number, unit = _split(what, text, forms)
    if unit == "x":
        return Amount(text.strip(), ratio=_fraction(what, text, number))
    return Amount(text.strip(), amount=_scaled(what, text, units, forms))


def parse_size(text: str) -> Amount:
    """Returns the size of a model's files that `text` names: `2MB` (10^6 bytes), `800KiB`, or `0.5x` of the input's.

    Raises UsageError where it has no unit, is not above zero, or is a ratio of 1 or more.
    """
    return _amount("target size", text, _SIZES, "2MB or 0.5x")


def parse_macs(text: str) -> Amount:
    """Returns the multiply-accumulates that `text` names: `100M` (10^6), `1.2G`, or `0.5x` of the input model's."""
    return _amount("target MACs", text, _COUNTS, "100M or 0.5x")


def parse_ratio(text: str, what: str = "ratio") -> float:
    """Returns the fraction of the original that is to be left, of a text like `0.6x`."""
    number, unit = _split(what, text, "0.6x")
    if unit != "x":
        raise UsageError(f"{what} {text!r} has an unknown unit {unit!r}; write it like 0.6x")
    return _fraction(what, text, number)


def parse_memory(text: str) -> int:
    """Returns bytes, of a text like `8GB` (10^9 bytes a GB) or `8GiB` (2^30)."""
    return int(_scaled("memory limit", text, _SIZES, "8GB or 512MiB"))


def parse_duration(text: str) -> float:
    """Returns seconds, of a text like `30m`, `90s` or `2h`."""
    return _scaled("time limit", text, _SPANS, "30m, 90s or 2h")


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Returns the input's name and its shape, of a text like `x:1,3,224,224`. The name may hold colons itself."""
    name, colon, sizes = text.rpartition(":")
    parts = [part.strip() for part in sizes.split(",")] if sizes.strip() else []
    if not colon or not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"input shape {text!r} is not NAME:SIZE,SIZE,...; write it like x:1,3,224,224")
    return name, tuple(int(part) for part in parts)


def _digits(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 99.95 else f"{number:.3g}"


def time_text(seconds: float) -> str:
    """Returns a latency with three or four digits: `812 us`, `5.31 ms`, `1.204 s`."""
    if seconds >= 1:
        return f"{seconds:.3f} s"
    return f"{_digits(seconds * 1e6)} us" if seconds < 1e-3 else f"{_digits(seconds * 1e3)} ms"


def count_text(number: float) -> str:
    """Returns a count with three digits and its magnitude: `853`, `12.3 K`, `41.2 M`, `1.05 G`."""
    for scale, unit in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if abs(number) >= scale:
            return _digits(number / scale) + unit
    return f"{number:g}"


def bytes_text(number: float) -> str:
    """Returns a size in decimal units: `853 B`, `12.3 KB`, `3.42 MB`."""
    return f"{count_text(number)}B" if abs(number) >= 1000 else f"{number:g} B"
