"""Files of measured latencies: a section a target, with operators and looks at whole models, shared by processes.

Two kinds of file have this form. A *cache* belongs to the project: it holds one section, is refused where it comes from
another host or runtime, and is replaced where it cannot be read. A *named* file belongs to the user: it holds a section
for every target, is taken from wherever it comes, and is never touched where something is wrong with it.

Every entry is written once. Where two processes measure one thing at a time, the first to write wins and the other one
takes over what it finds: what a process acts on is what the file holds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import DataError, FileSystemError

SCHEMA = 2
Look = dict[str, float]
"""Figures of one look at a model, by what they are."""


@dataclass
class Section:
    """What is known of one target. `target`: provider, options, threads, config; `origins`: every host and runtime that
    measured a part of it.

    reference_s: seconds of the reference operator, which `ratios` are multiplied by; None in a cache: today's count.
    ratios: latency of operators over the reference, None for what cannot be run. looks: figures by kind and structure.
    """

    target: Mapping[str, Any]
    origins: list[Mapping[str, str]]
    reference_s: float | None = None
    ratios: dict[str, float | None] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)

    def take(self, other: Section) -> None:
        """Adds what another section of this target holds; what is there already stays."""
        self.origins += [origin for origin in other.origins if origin not in self.origins]
        self.reference_s = other.reference_s if self.reference_s is None else self.reference_s
        self.ratios = {**other.ratios, **self.ratios}
        self.looks = {**other.looks, **self.looks}

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite figure (a bound that too few runs can give) becomes null."""
        looks = {key: {k: v if math.isfinite(v) else None for k, v in look.items()} for key, look in self.looks.items()}
        return {
            "target": dict(self.target),
            "measured_on": [dict(origin) for origin in self.origins],
            "reference_s": self.reference_s,
            "ratios": dict(sorted(self.ratios.items())),
            "looks": dict(sorted(looks.items())),
        }

    @staticmethod
    def of_json(plain: Any) -> Section:
        """Raises ValueError where the data are no section."""
        target, origins = _mapping(plain).get("target"), plain.get("measured_on")
        if not isinstance(origins, list):
            raise ValueError("a section does not say where it was measured")
        reference = plain.get("reference_s")
        ratios = {k: None if v is None else _positive(v, k) for k, v in _mapping(plain.get("ratios")).items()}
        looks = {
            key: {k: math.inf if v is None else _positive(v, key) for k, v in _mapping(look).items()}
            for key, look in _mapping(plain.get("looks")).items()
        }
        return Section(
            _mapping(target),
            [_mapping(origin) for origin in origins],
            None if reference is None else _positive(reference, "reference_s"),
            ratios,
            looks,
        )


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a mapping is missing")
    return value


def _positive(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{what[:80]} is {value!r}, not a positive number")
    return float(value)


class TableFile:
    """One target's section of a file, kept in step with the disk. `named`: the file belongs to the user.

    A named file that is no latency table raises DataError, one that cannot be read or written FileSystemError; a cache
    is ignored with a warning, and overwritten where something is measured.
    """

    def __init__(self, path: Path, target: Mapping[str, Any], origin: Mapping[str, str], *, named: bool) -> None:
        self.path = path.resolve()  # a symbolic link stays one: what it points to is replaced
        self.named, self._origin = named, origin
        self.section = Section(target, [])
        self._adopt(self._read())

    @property
    def foreign(self) -> tuple[str, ...]:
        """Hosts and runtimes, other than this one, that measured a part of the section."""
        others = [origin for origin in self.section.origins if origin != self._origin]
        return tuple(f"host {o.get('host', '?')}, onnxruntime {o.get('onnxruntime', '?')}" for o in others)

    def add(
        self,
        *,
        reference_s: float | None = None,
        ratios: Mapping[str, float | None] | None = None,
        looks: Mapping[str, Look] | None = None,
    ) -> None:
        """Writes entries that are not in the file yet, and adopts those that another process wrote meanwhile."""
        fresh = Section(self.section.target, [self._origin], reference_s, dict(ratios or {}), dict(looks or {}))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                sections = self._read(quiet=True)
                self._adopt(sections)
                self.section.take(fresh)
                others = [s for s in sections if s.target != self.section.target]
                write(self.path, [*others, self.section])
        except OSError as error:
            self.section.take(fresh)
            text = f"cannot write the latency {'table' if self.named else 'cache'} {self.path}"
            if self.named:
                raise FileSystemError(f"{text}: {error.strerror or error}") from error
            warnings.warn(f"{text}: {error.strerror or error}", stacklevel=4)

    def _adopt(self, sections: list[Section]) -> None:
        for found in sections:
            if found.target == self.section.target:
                found.take(self.section)
                self.section = found

    def _read(self, *, quiet: bool = False) -> list[Section]:
        if self.named:
            return read_named(self.path)
        try:
            sections = read(self.path)
            if all(section.origins == [self._origin] for section in sections):
                return sections
            reason = "it was measured on another host or runtime"
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError, RecursionError) as error:
            reason = _reason(error)
        if not quiet:
            warnings.warn(f"latency cache {self.path} is ignored: {reason}", stacklevel=4)
        return []


def read_named(path: Path) -> list[Section]:
    """The sections of a file that the user named; none where it does not exist yet. Raises DataError where it is no
    latency table, FileSystemError where it cannot be read.
    """
    try:
        return read(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileSystemError(f"the latency table {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no latency table: {_reason(error)}; name another file") from None


def _reason(error: BaseException) -> str:
    return str(error).split("\n")[0][:160]


def read(path: Path) -> list[Section]:
    """The sections of a file, one a target. Raises OSError, or ValueError where it is no table of this version."""
    stored = json.loads(path.read_bytes())
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA or not isinstance(stored.get("sections"), list):
        raise ValueError(f"it is not a latency table of version {SCHEMA}")
    return [Section.of_json(section) for section in stored["sections"]]


def write(path: Path, sections: list[Section]) -> None:
    """Replaces a file by these sections in one step. Raises OSError."""
    ordered = sorted((section.to_json() for section in sections), key=lambda s: json.dumps(s["target"], sort_keys=True))
    text = json.dumps({"schema": SCHEMA, "sections": ordered}, indent=1, allow_nan=False)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as stream:
        temporary = Path(stream.name)
        try:
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Exclusive lock in a file beside `path`, which is gone afterwards."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    name = path.with_name(path.name + ".lock")
    while True:
        with name.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is(name, lock.fileno()):  # whoever held it has removed it: this lock keeps nobody out
                continue
            try:
                yield
            finally:
                name.unlink(missing_ok=True)
            return


def _is(name: Path, handle: int) -> bool:
    try:
        return os.path.samestat(name.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
