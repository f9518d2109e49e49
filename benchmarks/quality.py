"""Runs the acceptance table on the zoo and prints it.

    python benchmarks/quality.py --zoo PATH [--out FOLDER] [--only MODEL] [--rows A,B] [--seeds 0,1,2] [--record]

Every row is one `onnxprune` command, run through the command line with an empty latency cache, once for each seed; its
model is evaluated by the zoo's own `zoo.py`. The table shows the run whose metric is the median. FOLDER keeps models,
reports, and one JSON line a run in rows.jsonl: what has one is not run again without --again. All rows run with their
first seed before any runs with its second. The last table is in FOLDER/table.md; --record puts it into RESULTS.md.
Exit code 1 where a row that was asked for does not hold.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cases import CASES, Case, chosen, row_id
from command import run
from place import Place, last_line
from recording import ZOO_VARIABLE, append_line, machine, read_lines, record, zoo_path
from verdicts import asked_of, checks, holds, medians, table

THREADS = 1
MOST_SECONDS = 3600.0
SECTION = "quality"


def main() -> int:
    """Runs what is asked for, writes the table, and says what does not hold."""
    asked = _arguments()
    cases = chosen(asked.only, asked.rows)
    out: Path = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "rows.jsonl"
    if not asked.table:
        _run_all(Place(zoo_path(asked.zoo), out), plan(cases, asked.seeds), lines, again=asked.again)
    runs = read_lines(lines)
    text = table(CASES, runs)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if asked.record:
        record(SECTION, f"## Quality\n\nBy `python benchmarks/quality.py --record`.\n\n{text}")
    rows = medians(cases, runs)
    done = [checks(case, rows[case.name], rows) for case in cases if case.name in rows and asked_of(case)]
    return int(any(value is False for found in done for value in found.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", help=f"folder with the zoo of trained models; default: ${ZOO_VARIABLE}")
    parser.add_argument("--out", type=Path, default=Path("build/quality"), help="default: %(default)s")
    parser.add_argument("--only", metavar="MODEL", help="only the rows of this model")
    parser.add_argument("--rows", metavar="A,B", help="only these rows")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2), metavar="0,1,2", help="default: 0,1,2")
    parser.add_argument("--again", action="store_true", help="run rows again that were run before")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of what was run")
    parser.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def plan(cases: Sequence[Case], seeds: Sequence[int]) -> list[tuple[Case, int]]:
    """Every run, in order: all rows with the first seed, then those that are asked for more."""
    return [(case, seed) for turn, seed in enumerate(seeds) for case in cases if turn < case.seeds]


def _run_all(place: Place, runs: Sequence[tuple[Case, int]], lines: Path, *, again: bool) -> None:
    for case, seed in runs:
        name = row_id(case, seed)
        if again or name not in read_lines(lines):
            print(f"{name} ...", file=sys.stderr, flush=True)
            append_line(lines, measured(case, seed, place))
            rows = medians(CASES, read_lines(lines))
            print(f"{name}: {holds(checks(case, rows[case.name], rows))}", file=sys.stderr, flush=True)


def measured(case: Case, seed: int, place: Place) -> dict[str, Any]:
    """Runs one row and returns everything that is recorded of it."""
    arguments = command_line(case, seed, place.calibration(case))
    before = place.before(case)
    facts = machine(THREADS)
    written, report_file = (place.out / f"{row_id(case, seed)}.{kind}" for kind in ("onnx", "json"))
    for path in (written, report_file):
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="onnxprune-cache-") as cache:
        argv = [sys.executable, "-P", "-m", "onnxprune", *_real(arguments, place)]
        ran = run(argv, cwd=place.out, environment={"XDG_CACHE_HOME": cache}, timeout=MOST_SECONDS)
    (place.out / f"{row_id(case, seed)}.log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else {}
    valid, after, fault = _judged(case, seed, place, written) if written.is_file() else (None, None, None)
    return {
        "id": row_id(case, seed),
        "seed": seed,
        "command": shown(arguments),
        "machine": facts,
        "exit_code": ran.exit_code,
        "traceback": "Traceback (most recent call last)" in ran.stderr,
        "error": fault or (place.anonymous(last_line(ran.stderr)) if ran.exit_code else None),
        "seconds": round(ran.seconds, 2),
        "cpu_seconds": round(ran.cpu_seconds, 2),
        "peak_memory_bytes": ran.peak_bytes,
        "written": written.is_file(),
        "valid": valid,
        "metric": before["metric"],
        "before": before["value"],
        "after": after,
        **from_report(case, report),
    }


def command_line(case: Case, seed: int, calibration: str | None) -> list[str]:
    """The arguments of a row as they are shown; $ONNXPRUNE_ZOO stands for the zoo."""
    data = [] if calibration is None else ["--calib-data", calibration]
    model = f"${ZOO_VARIABLE}/{case.model}/{case.file}"
    written = ["-o", f"{row_id(case, seed)}.onnx"]
    end = [*case.options, *data, "--seed", str(seed), "--report", f"{row_id(case, seed)}.json"]
    if case.kind == "prune":
        return ["prune", model, *written, "--macs", case.target, *end]
    return [model, *written, "--target-latency", case.target, "--threads", str(THREADS), *end]


def shown(arguments: list[str]) -> str:
    """The command as a reader would type it."""
    return " ".join(["onnxprune", *arguments])


def _real(arguments: list[str], place: Place) -> list[str]:
    return [argument.replace(f"${ZOO_VARIABLE}", str(place.zoo)) for argument in arguments]


def _judged(case: Case, seed: int, place: Place, written: Path) -> tuple[bool, float | None, str | None]:
    """Whether the checker and ONNX Runtime take the model, its metric, and what is wrong with it."""
    import onnx

    try:
        onnx.checker.check_model(str(written), full_check=True)
    except onnx.checker.ValidationError as error:
        return False, None, place.anonymous(f"the checker refuses the model: {last_line(str(error))}")
    try:
        return True, float(place.evaluated(case, written, _others(case, seed, place))["value"]), None
    except SystemExit as error:
        return False, None, place.anonymous(f"the model cannot be evaluated: {error}")


def _others(case: Case, seed: int, place: Place) -> dict[str, Path]:
    """The model of the row that this one is evaluated together with, where that one was written."""
    beside = next((other for other in CASES if other.name == case.beside), None)
    written = place.out / f"{row_id(beside, seed)}.onnx" if beside else None
    return {beside.file: written} if beside and written and written.is_file() else {}


def from_report(case: Case, report: Mapping[str, Any]) -> dict[str, Any]:
    """What a row keeps of the report; None for what it does not say."""
    speedup: Mapping[str, Any] = next(iter(report.get("speedup", {}).values()), {})
    ratio = speedup.get("ratio")
    goal = float(case.target.removesuffix("x"))
    rounds = report.get("search", [])
    tried = [max(entry["measured_ratio"]) for entry in rounds if entry.get("measured_ratio")]
    compress = case.kind == "compress"
    return {
        "met": report.get("met"),
        "ratio": ratio,
        "upper95": speedup.get("upper95"),
        "verdict": speedup.get("verdict"),
        "landing": ratio / goal if compress and ratio is not None and report.get("met") else None,
        "least_above": min((value for value in tried if value > goal), default=None) if compress else None,
        "nothing_between": compress and _nothing_between(report.get("notes", ()), goal),
        "lossless_met": bool(compress and report.get("met") and not rounds),
        "floor": next(iter(report.get("floor", {}).values()), None),
        "params_ratio": report.get("params_ratio"),
        "macs_ratio": report.get("macs_ratio"),
        "scheme": report.get("scheme"),
        "dropped_branches": len(report.get("dropped_branches", ())),
        "drift": (report.get("drift") or {}).get("value"),
        "stages": report.get("stages", {}),
        "notes": report.get("notes", []),
    }


def _nothing_between(notes: Sequence[str], goal: float) -> bool:
    """Whether the report says that every level that loses less measured above the target."""
    for note in notes:
        if "no larger level loses less" in note:
            return True
        found = re.search(r"the next larger level measured ([0-9.]+)x", note)
        if found:
            return float(found[1]) > goal
    return False


if __name__ == "__main__":
    sys.exit(main())
