"""What all benchmarks write: JSON lines to go on from, Markdown tables, and sections of RESULTS.md."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
ZOO_VARIABLE = "ONNXPRUNE_ZOO"


def zoo_path(given: str | None) -> Path:
    """The folder with the zoo of trained models: as given, else $ONNXPRUNE_ZOO. SystemExit where there is none."""
    path = Path(given or os.environ.get(ZOO_VARIABLE) or "")
    if not (path / "zoo.py").is_file():
        raise SystemExit(f"no zoo of trained models: give its folder with --zoo or ${ZOO_VARIABLE}")
    return path.resolve()


def machine(threads: int) -> dict[str, Any]:
    """What a figure depends on: processor, cores, memory, versions, threads of the measured model, load and date."""
    from runtime_bench.host import host, versions

    facts, found = host(), versions()
    return {
        "cpu": facts["cpu"],
        "cpu_model": facts["cpu_model"],
        "cores": facts["usable_cores"],
        "memory_gib": facts["memory_gib"],
        "onnxruntime": found.get("onnxruntime", ""),
        "onnxprune": found.get("onnxprune", ""),
        "commit": _commit(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _commit() -> str:
    """Short name of the commit that runs, with + where files differ from it; empty outside a checkout."""
    try:
        asked = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(asked, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine_text(facts: Mapping[str, Any]) -> str:
    """One line of `machine`, without what changes from row to row."""
    plural = "" if facts["threads"] == 1 else "s"
    return (
        f"{facts['cpu']} (family/model/stepping {facts['cpu_model']}), {facts['cores']} cores, "
        f"{facts['memory_gib']} GiB, ONNX Runtime {facts['onnxruntime']}, {facts['threads']} thread{plural}"
    )


def machines_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The machines, dates and loads of rows that carry a `machine` each."""
    found = [row["machine"] for row in rows]
    lines = dict.fromkeys(machine_text(facts) for facts in found)
    dates = sorted(facts["date"] for facts in found)
    loads = [facts["load"] for facts in found]
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    commits = ", ".join(dict.fromkeys(facts["commit"] for facts in found if facts["commit"]))
    at = f", commit {commits}" if commits else ""
    load = f"{min(loads)}" if min(loads) == max(loads) else f"{min(loads)} to {max(loads)}"
    return f"Machine: {'; '.join(lines)}. Date: {when}{at}. Load average when a row began: {load}."


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one JSON line; `read_lines` leaves out one that an interruption tore."""
    torn = path.is_file() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as stream:
        stream.write(("\n" if torn else "") + json.dumps(row, allow_nan=False) + "\n")


def read_lines(path: Path, key: str = "id") -> dict[str, dict[str, Any]]:
    """Rows by their key, the last one of each; a line torn by an interrupted run is left out."""
    found: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row[key]] = row
    return found


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def with_section(document: str, name: str, body: str) -> str:
    """The document with the section of that name replaced, or added at the end."""
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{first}\n{body.strip()}\n{last}"
    if first not in document:
        return f"{document.rstrip()}\n\n{section}\n"
    before, _, rest = document.partition(first)
    _, closed, after = rest.partition(last)
    if not closed:
        raise ValueError(f"section {name!r} has no end marker")
    return before + section + after


def record(name: str, body: str, path: Path = RESULTS) -> None:
    """Writes a section of RESULTS.md and leaves the others as they are."""
    document = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n"
    path.write_text(with_section(document, name, body), encoding="utf-8")
