"""Results are kept by section, rows by name, and a torn line costs only itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from recording import append_line, machine, machines_text, markdown_table, read_lines, record, with_section


def test_a_section_is_replaced_and_the_rest_is_kept() -> None:
    one = with_section("# Results\n\nWords.\n", "a", "first")
    two = with_section(one, "b", "second")
    again = with_section(two, "a", "first, again")
    assert again.index("first, again") < again.index("second")
    assert "first\n" not in again
    assert again.startswith("# Results\n\nWords.\n")
    assert with_section(again, "a", "first, again") == again


def test_a_section_without_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no end marker"):
        with_section("<!-- a: begin -->\nwords\n", "a", "new")


def test_record_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    record("a", "one", path)
    record("a", "two", path)
    text = path.read_text()
    assert text.startswith("# Results\n")
    assert "two" in text
    assert "one" not in text


def test_the_last_line_of_a_row_counts_and_a_torn_one_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_lines(path) == {}
    append_line(path, {"id": "a", "value": 1})
    append_line(path, {"id": "a", "value": 2})
    with path.open("a") as stream:
        stream.write('{"id": "b", "val')
    append_line(path, {"id": "c", "value": 3})
    rows = read_lines(path)
    assert {name: row["value"] for name, row in rows.items()} == {"a": 2, "c": 3}


def test_rows_must_be_strict_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_line(tmp_path / "rows.jsonl", {"id": "a", "value": float("nan")})


def test_bars_in_cells_are_escaped() -> None:
    lines = markdown_table(("a", "b"), [("x|y", "z")]).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", "| x\\|y | z |"]


def test_the_machine_is_told_without_any_path() -> None:
    facts = machine(1)
    text = machines_text([{"machine": facts}, {"machine": {**facts, "load": facts["load"] + 1}}])
    assert f"{facts['load']} to {facts['load'] + 1}" in text
    assert "1 thread." in text
    assert facts["onnxruntime"] in text
    assert str(Path.home()) not in text
