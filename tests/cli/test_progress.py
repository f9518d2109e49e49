"""Progress displays: plain lines, held lines, rich output, and text from models that tries to escape."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from onnxprune.progress import PlainProgress, RichProgress, SilentProgress, aligned, choose, one_line, seconds_text


def test_one_line_escapes_what_could_steer_a_terminal() -> None:
    assert one_line("a\n b\t c") == "a b c"
    assert one_line("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert one_line("näme") == "näme"


def test_seconds_text() -> None:
    spans = [seconds_text(seconds) for seconds in (0.04, 9.94, 9.96, 59.4, 59.6, 3605)]
    assert spans == ["0.0s", "9.9s", "10s", "59s", "1m00s", "1h00m"]


def test_plain_lines_when_verbose() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, verbose=True)
    progress.stage("measure", "round 1\nof 5", remaining=61.0)
    progress.decide("kept [12] of 16")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("measure: round 1 of 5 (about 1m01s left)")
    assert lines[1:] == ["kept [12] of 16"]


def test_a_repeated_stage_is_told_now_and_then() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, verbose=True)
    for step in range(100):
        progress.stage("measure", f"{step} of 100")
    progress.stage("solve")
    assert [line.split("] ")[1] for line in stream.getvalue().splitlines()] == ["measure: 0 of 100", "solve"]


def test_plain_lines_wait_for_a_good_end() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.stage("measure")
    progress.decide("first")
    progress.table([["", "before"], ["P50", "1 ms"]])
    assert stream.getvalue() == ""
    progress.close()
    assert stream.getvalue() == "first\n     before\nP50    1 ms\n"


def test_a_failed_run_tells_nothing() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.decide("first")
    progress.close(failed=True)
    progress.close()
    assert stream.getvalue() == ""


def test_rich_display_takes_markup_literally() -> None:
    stream = io.StringIO()
    progress = RichProgress(Console(file=stream, force_terminal=False, width=80))
    progress.stage("search", "[/bold] \x1b[2J", remaining=5.0)
    progress.stage("search", "more")
    progress.decide("group [red]x[/red] drops")
    progress.table([["what", "value"], ["[b]P50[/b]", "1 ms"]])
    progress.close()
    progress.close()
    shown = stream.getvalue()
    assert "group [red]x[/red] drops" in shown
    assert "[b]P50[/b]" in shown
    assert "\x1b[2J" not in shown


def test_aligned_pads_short_rows() -> None:
    assert aligned([["a", "b"], ["long"]]) == ["a     b", "long"]
    assert aligned([]) == []


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(choose(quiet=True), SilentProgress)
    assert isinstance(choose(), PlainProgress)
