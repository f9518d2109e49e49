"""Runs the acceptance table on the zoo and prints it.

    python benchmarks/quality.py --zoo PATH [--out FOLDER] [--only MODEL] [--rows A,B] [--again] [--record]

Every row is one `onnxprune` command, run through the command line with an empty latency cache; its model is evaluated
by the zoo's own `zoo.py`. FOLDER keeps models, reports, and one JSON line a row in rows.jsonl: a row that has one is
not run again without --again. The last table is in FOLDER/table.md; --record puts it into RESULTS.md.
Exit code 1 where a row that was asked for does not hold.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import CASES, Case, chosen
from command import Ran, run
from recording import ZOO_VARIABLE, append_line, machine, read_lines, record, zoo_path
from verdicts import checks, holds, table

THREADS = 1
MOST_SECONDS = 3600.0
EVALUATION_SECONDS = 1800.0
SECTION = "quality"


@dataclass(frozen=True)
class Place:
    """Where the zoo is and where everything goes; nothing that is recorded names either."""

    zoo: Path
    out: Path

    def anonymous(self, text: str) -> str:
        """The text with both folders replaced by what a reader would type."""
        shown = text.replace(str(self.zoo), f"${ZOO_VARIABLE}").replace(f"{self.out}/", "").replace(str(self.out), ".")
        return shown.replace(str(Path.home()), "~")

    def zoo_command(self, *arguments: str) -> Ran:
        """Runs the zoo's own script. SystemExit with its last line where it fails: without it no row means anything."""
        argv = [sys.executable, str(self.zoo / "zoo.py"), *arguments]
        ran = run(argv, cwd=self.out, environment={"PYTHONDONTWRITEBYTECODE": "1"}, timeout=EVALUATION_SECONDS)
        if ran.exit_code:
            raise SystemExit(f"zoo.py {' '.join(arguments)} failed: {last_line(ran.stderr) or ran.exit_code}")
        return ran


def main() -> int:
    """Runs what is asked for, writes the table, and says what does not hold."""
    asked = _arguments()
    cases = chosen(asked.only, asked.rows)
    out: Path = asked.out.resolve()
    (out / "calib").mkdir(parents=True, exist_ok=True)
    lines = out / "rows.jsonl"
    if not asked.table:
        place = Place(zoo_path(asked.zoo), out)
        for case in cases:
            if asked.again or case.name not in read_lines(lines):
                print(f"{case.name} ...", file=sys.stderr, flush=True)
                append_line(lines, measured(case, place))
                rows = read_lines(lines)
                print(f"{case.name}: {holds(checks(case, rows[case.name], rows))}", file=sys.stderr, flush=True)
    rows = read_lines(lines)
    text = table(CASES, rows)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if asked.record:
        record(SECTION, f"## Quality\n\nBy `python benchmarks/quality.py --record`.\n\n{text}")
    done = [checks(case, rows[case.name], rows) for case in cases if case.name in rows]
    return int(any(value is False for found in done for value in found.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", help=f"folder with the zoo of trained models; default: ${ZOO_VARIABLE}")
    parser.add_argument("--out", type=Path, default=Path("build/quality"), help="default: %(default)s")
    parser.add_argument("--only", metavar="MODEL", help="only the rows of this model")
    parser.add_argument("--rows", metavar="A,B", help="only these rows")
    parser.add_argument("--again", action="store_true", help="run rows again that were run before")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of what was run")
    parser.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


def measured(case: Case, place: Place) -> dict[str, Any]:
    """Runs one row and returns everything that is recorded of it."""
    calibration = _calibration(case, place)
    arguments = command_line(case, calibration)
    before = _evaluated(case, place, None)
    facts = machine(THREADS)
    written, report_file = place.out / f"{case.name}.onnx", place.out / f"{case.name}.json"
    for path in (written, report_file):
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="onnxprune-cache-") as cache:
        argv = [sys.executable, "-P", "-m", "onnxprune", *_real(arguments, place)]
        ran = run(argv, cwd=place.out, environment={"XDG_CACHE_HOME": cache}, timeout=MOST_SECONDS)
    (place.out / f"{case.name}.log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else {}
    valid, after, fault = _judged(case, place, written) if written.is_file() else (None, None, None)
    return {
        "id": case.name,
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


def command_line(case: Case, calibration: str | None) -> list[str]:
    """The arguments of a row as they are shown; $ONNXPRUNE_ZOO stands for the zoo."""
    data = [] if calibration is None else ["--calib-data", calibration]
    model = f"${ZOO_VARIABLE}/{case.model}/{case.file}"
    written = ["-o", f"{case.name}.onnx"]
    end = [*case.options, *data, "--report", f"{case.name}.json"]
    if case.kind == "prune":
        return ["prune", model, *written, "--macs", case.target, *end]
    return [model, *written, "--target-latency", case.target, "--threads", str(THREADS), *end]


def shown(arguments: list[str]) -> str:
    """The command as a reader would type it."""
    return " ".join(["onnxprune", *arguments])


def _real(arguments: list[str], place: Place) -> list[str]:
    return [argument.replace(f"${ZOO_VARIABLE}", str(place.zoo)) for argument in arguments]


def _calibration(case: Case, place: Place) -> str | None:
    """Makes the calibration data of a row where it is not there yet; its path within the output folder."""
    if case.samples is None:
        return None
    name = f"calib/{case.model}-{case.samples}.npz"
    if not (place.out / name).is_file():
        part = f"{name}.part.npz"
        place.zoo_command("calib", case.model, part, str(case.samples))
        (place.out / part).rename(place.out / name)
    return name


def _judged(case: Case, place: Place, written: Path) -> tuple[bool, float | None, str | None]:
    """Whether the checker and ONNX Runtime take the model, its metric, and what is wrong with it."""
    import onnx

    try:
        onnx.checker.check_model(str(written), full_check=True)
    except onnx.checker.ValidationError as error:
        return False, None, place.anonymous(f"the checker refuses the model: {last_line(str(error))}")
    try:
        return True, float(_evaluated(case, place, written)["value"]), None
    except SystemExit as error:
        return False, None, place.anonymous(f"the model cannot be evaluated: {error}")


def _evaluated(case: Case, place: Place, model: Path | None) -> dict[str, Any]:
    """The zoo's metric of a model, or of the model that the row starts from (that one is kept: it never changes)."""
    name = f"{case.model}/{case.file}"
    if model is None and name in (known := read_lines(place.out / "baselines.jsonl")):
        return known[name]
    start = place.zoo / case.model / case.file
    with tempfile.TemporaryDirectory(prefix="onnxprune-eval-") as folder:
        variant = _evaluable(case, place, model or start, Path(folder))
        found: dict[str, Any] = json.loads(place.zoo_command("eval", case.model, str(variant)).stdout.splitlines()[-1])
    if model is None:
        append_line(place.out / "baselines.jsonl", {**found, "id": name})
    return found


def _evaluable(case: Case, place: Place, model: Path, folder: Path) -> Path:
    """The model, or, for one of several files that only run together, a folder with it among the others."""
    if case.file.startswith("model_") and not (place.zoo / case.model / "model.onnx").is_file():
        for path in (place.zoo / case.model).glob("*.onnx"):
            shutil.copyfile(model if path.name == case.file else path, folder / path.name)
        return folder
    return model


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


def last_line(text: str) -> str:
    """The last line that holds anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    sys.exit(main())
