"""The measurements that a search decides on, kept in a latency table, so that the same decisions can be taken again.

A look is keyed by its kind and by the structure of the models that it measured, since latency does not depend on the
values of weights. Where the user names a table, a look that is in it is taken from it, and any other one is measured
and written; without one every look is measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxprune.search.structure import structure
from runtime_bench.table_file import Look, TableFile
from runtime_bench.target import Target


@dataclass
class Journal:
    """The looks on one target. `file`: where they are kept; None measures every one.

    taken, measured: how many looks came from the file, and how many did not.
    """

    target: Target
    file: TableFile | None = None
    taken: int = 0
    measured: int = 0
    _structures: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    def look(self, kind: str, models: Sequence[Path], measure: Callable[[], Look]) -> Look:
        """The figures of a look at these models: those of the file, else measured now.

        Every figure must be positive. Raises what `measure` raises, and then writes nothing.
        """
        if (known := self.recall(kind, models)) is not None:
            self.taken += 1
            return known
        found = measure()
        self.measured += 1
        if self.file is None:
            return found
        key = self._key(kind, models)
        self.file.add(looks={key: found})
        return self.file.section.looks[key]  # another process may have been first

    def recall(self, kind: str, models: Sequence[Path]) -> Look | None:
        """What the file holds of a look, or None."""
        return None if self.file is None else self.file.section.looks.get(self._key(kind, models))

    def _key(self, kind: str, models: Sequence[Path]) -> str:
        structures = [self._structure(path) for path in models]
        place = repr((self.target.batch, sorted(self.target.shape_map.items()), structures))
        digest = hashlib.sha256(place.encode()).hexdigest()[:16]
        return f"{kind} {structures[-1] if structures else 'host'} {digest}"

    def _structure(self, path: Path) -> str:
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in self._structures:
            self._structures[key] = structure(path)
        return self._structures[key]
