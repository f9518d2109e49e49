"""Progress on stderr: which stage runs, how long it has taken and may still take, and what was decided.

`RichProgress` animates one status line on a terminal; `PlainProgress` writes one plain line an event anywhere else, so
that logs stay readable; `SilentProgress` says nothing. Only the command line chooses; the engine sees `Progress`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

Row = Sequence[str]

_REPEAT_SECONDS = 5.0


def one_line(text: str) -> str:
    """Returns `text` on one line with control characters escaped: names come from models and may hold anything."""
    return " ".join("".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text).split())


def seconds_text(seconds: float) -> str:
    """Returns a short text of a time span: `0.4s`, `12s`, `3m05s`, `1h02m`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress(Protocol):
    """What the engine tells while it works."""

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        """Says that the stage `name` runs now. Called again with the same name it only updates `detail`.

        `remaining` is the time left for the whole run in seconds, where it is known.
        """

    def decide(self, text: str) -> None:
        """Says something that was decided or found, in one line, for good."""

    def table(self, rows: Sequence[Row]) -> None:
        """Shows a table; the first row is its heading."""

    def close(self, *, failed: bool = False) -> None:
        """Ends the display, before an error is printed where the run `failed`."""


class SilentProgress:
    """Says nothing: the default of the Python API and of `--quiet`."""

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None: ...

    def decide(self, text: str) -> None: ...

    def table(self, rows: Sequence[Row]) -> None: ...

    def close(self, *, failed: bool = False) -> None: ...


def aligned(rows: Sequence[Row], left: Collection[int] = (0,)) -> list[str]:
    """Returns the rows of a table as plain lines, columns padded to equal width, those in `left` to the left."""
    if not rows:
        return []
    columns = max(len(row) for row in rows)
    cells = [[one_line(cell) for cell in row] + [""] * (columns - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(columns)]
    return [
        "  ".join(row[i].ljust(widths[i]) if i in left else row[i].rjust(widths[i]) for i in range(columns)).rstrip()
        for row in cells
    ]


class PlainProgress:
    """Plain lines for logs and pipes.

    With `verbose` every event is a line at once, a stage that repeats itself only now and then. Without it only what
    was decided is told, and only when the run ends well: a run that fails leaves one line on stderr, its error.
    """

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._verbose = verbose
        self._start = time.monotonic()
        self._held: list[str] = []
        self._stage, self._told = "", 0.0

    def _lines(self, lines: Sequence[str]) -> None:
        if self._verbose:
            self._stream.writelines(line + "\n" for line in lines)
            self._stream.flush()
        else:
            self._held.extend(lines)

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        now = time.monotonic()
        if self._verbose and (name != self._stage or now - self._told >= _REPEAT_SECONDS):
            self._stage, self._told = name, now
            left = f" (about {seconds_text(remaining)} left)" if remaining is not None else ""
            elapsed = seconds_text(now - self._start)
            self._lines([f"[{elapsed:>6}] {one_line(name)}{': ' + one_line(detail) if detail else ''}{left}"])

    def decide(self, text: str) -> None:
        self._lines([one_line(text)])

    def table(self, rows: Sequence[Row]) -> None:
        self._lines(aligned(rows))

    def close(self, *, failed: bool = False) -> None:
        if not failed:
            self._stream.writelines(line + "\n" for line in self._held)
            self._stream.flush()
        self._held.clear()


class RichProgress:
    """A live status line with a spinner, and lasting lines above it for what was decided."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._status: Status | None = None
        self._start = time.monotonic()

    def stage(self, name: str, detail: str = "", *, remaining: float | None = None) -> None:
        from rich.markup import escape

        left = f", about {seconds_text(remaining)} left" if remaining is not None else ""
        elapsed = seconds_text(time.monotonic() - self._start)
        text = f"[bold]{escape(one_line(name))}[/bold] {escape(one_line(detail))} [dim]({elapsed}{left})[/dim]"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def decide(self, text: str) -> None:
        self._console.print(one_line(text), markup=False, soft_wrap=True)

    def table(self, rows: Sequence[Row]) -> None:
        from rich.table import Table
        from rich.text import Text

        if not rows:
            return
        table = Table(box=None, pad_edge=False)
        for i, heading in enumerate(rows[0]):
            table.add_column(Text(one_line(heading)), justify="left" if i == 0 else "right")
        for row in rows[1:]:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        self._console.print(table)

    def close(self, *, failed: bool = False) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def choose(*, quiet: bool = False, verbose: bool = False) -> Progress:
    """Returns the progress display for this process's stderr."""
    if quiet:
        return SilentProgress()
    return RichProgress() if sys.stderr.isatty() and not verbose else PlainProgress(verbose=verbose)
