"""Times the stages of a run: what `stages` of the report holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onnxprune.progress import Progress, Row


class Stopwatch:
    """Passes everything on to another `Progress`, and adds up the seconds between one stage and the next by name."""

    def __init__(self, inner: Progress, clock: Callable[[], float] = time.perf_counter) -> None:
        self._inner, self._clock = inner, clock
        self._begin = self._since = clock()
        self._name = ""
        self._spent: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Time since the stopwatch was made."""
        return self._clock() - self._begin

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of every stage so far, in the order in which they began; those before the first one count to none."""
        self._lap()
        return {name: round(spent, 3) for name, spent in self._spent.items()}

    def _lap(self) -> None:
        now = self._clock()
        if self._name:
            self._spent[self._name] += now - self._since
        self._since = now

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        if name != self._name:
            self._lap()
            self._name = name
            self._spent.setdefault(name, 0.0)
        self._inner.stage(name, detail, remaining=remaining)

    def decide(self, text: str) -> None:
        self._inner.decide(text)

    def table(self, rows: Sequence[Row]) -> None:
        self._inner.table(rows)

    def close(self, *, failed: bool = False) -> None:
        self._inner.close(failed=failed)
