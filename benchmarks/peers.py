"""Compares onnxprune with what a user would pick instead, and prints the tables.

    python benchmarks/peers.py --zoo PATH [--peers-python PATH] [--out FOLDER] [--only MODEL] [--tools A,B]
                               [--targets 0.5x,0.3x] [--again] [--table] [--record]

For each model of the acceptance table: every tool of peer_table.py with every setting, and onnxprune at several
targets; the zoo's own metric of each; and the latencies of all that lose less than ten points, interleaved in one run.
The other tools run in the interpreter of --peers-python (see README.md), by default this one, which has ONNX Runtime
alone. FOLDER keeps a JSON line a variant in variants.jsonl, a line a model in latencies.jsonl; what has one is not run
again without --again. Exit code 1 where onnxprune is behind on a model, or the geometric mean is under what is asked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case
from command import run
from peer_table import CALIBRATION_SAMPLES, OURS, TARGETS, Variant, point, starts, variants
from peer_verdicts import WORTH_MEASURING, compare_text, verdicts
from place import Place, last_line
from recording import append_line, machine, read_lines, record, zoo_path

THREADS = 1
SECTION = "peers"
TOOL_SECONDS, SEARCH_SECONDS = 900.0, 3600.0
LAUNCHES, BLOCKS, MEASURED_SAMPLES = 4, 6, 8
MOST_MEASURING_SECONDS = 240.0
TOOLS_FOLDER = Path(__file__).resolve().parent / "peer_tools"
UNREACHED = 4

Row = dict[str, Any]


def main() -> int:
    """Runs what is asked for and prints the tables."""
    asked = _arguments()
    out: Path = asked.out.resolve()
    (out / "models").mkdir(parents=True, exist_ok=True)
    if not asked.table:
        place = Place(zoo_path(asked.zoo), out)
        for model, case in starts().items():
            if asked.only in (None, model):
                _model(case, place, asked)
    made, timed = read_lines(out / "variants.jsonl"), read_lines(out / "latencies.jsonl")
    text = compare_text(made, timed)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if asked.record:
        record(SECTION, f"## Other tools\n\nBy `python benchmarks/peers.py --record`.\n\n{text}")
    return int(not all(verdicts(made, timed).values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", help="folder with the zoo of trained models; default: $ONNXPRUNE_ZOO")
    parser.add_argument(
        "--peers-python", default=sys.executable, metavar="PATH", help="interpreter with the other tools"
    )
    parser.add_argument("--out", type=Path, default=Path("build/peers"), help="default: %(default)s")
    parser.add_argument("--only", metavar="MODEL", choices=starts(), help="only this model")
    parser.add_argument("--tools", metavar="A,B", help=f"only these, such as '{OURS},ORT static int8'")
    parser.add_argument("--targets", default=",".join(TARGETS), help=f"of {OURS}; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="run again what was run before")
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables of what was run")
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    return parser.parse_args()


def _model(case: Case, place: Place, asked: argparse.Namespace) -> None:
    """Everything of one model: the others, ours, then all latencies in one run."""
    kept = place.out / "variants.jsonl"
    wanted = None if asked.tools is None else set(asked.tools.split(","))
    for variant in variants(case.model):
        name = f"{case.model}/{variant.tool}/{variant.label}"
        if (wanted is None or variant.tool in wanted) and (asked.again or name not in read_lines(kept)):
            print(f"{name} ...", file=sys.stderr, flush=True)
            append_line(kept, _tried(case, variant, name, place, asked.peers_python))
    if wanted is None or OURS in wanted:
        _ours(case, place, asked.targets.split(","), kept, again=asked.again)
    _latencies(case, place, kept, again=asked.again)


def _tried(case: Case, variant: Variant, name: str, place: Place, python: str) -> Row:
    """Runs one setting of another tool."""
    written = _file(place, name)
    request = {
        "model": str(place.start(case)),
        "data": str(place.out / str(place.calibration(case))),
        "out": str(written),
        "samples": CALIBRATION_SAMPLES,
        "settings": dict(variant.settings),
    }
    argv = [python, str(TOOLS_FOLDER / variant.script), json.dumps(request)]
    ran = run(argv, cwd=place.out, timeout=TOOL_SECONDS)
    (written.with_suffix(".log")).write_text(ran.stdout + ran.stderr, encoding="utf-8")
    error = "it ran too long" if ran.timed_out else last_line(ran.stderr) if ran.exit_code else None
    return _row(case, name, variant.tool, variant.label, written, round(ran.seconds, 1), error, place)


def _ours(case: Case, place: Place, targets: Sequence[str], kept: Path, *, again: bool) -> None:
    """Runs onnxprune at each target, in falling order, until one cannot be met; the latency table is shared."""
    for target in sorted(targets, key=lambda text: -float(text.removesuffix("x"))):
        name = f"{case.model}/{OURS}/{target}"
        if again or name not in read_lines(kept):
            print(f"{name} ...", file=sys.stderr, flush=True)
            written = _file(place, name)
            data = ["--calib-data", str(place.calibration(case)), "--threads", str(THREADS)]
            argv = [sys.executable, "-P", "-m", "onnxprune", str(place.start(case)), "-o", str(written), "--overwrite"]
            argv += ["--target-latency", target, *data, *case.options, "--report", str(written.with_suffix(".json"))]
            ran = run(
                argv, cwd=place.out, environment={"XDG_CACHE_HOME": str(place.out / "cache")}, timeout=SEARCH_SECONDS
            )
            written.with_suffix(".log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
            error = f"exit code {ran.exit_code}: {last_line(ran.stderr)}" if ran.exit_code else None
            row = _row(case, name, OURS, target, written, round(ran.seconds, 1), error, place)
            append_line(kept, {**row, "unreached": ran.exit_code == UNREACHED})
        if read_lines(kept)[name].get("unreached"):
            return


def _row(
    case: Case, name: str, tool: str, label: str, written: Path, seconds: float, error: str | None, place: Place
) -> Row:
    """What is kept of a variant: its metric, or why there is none."""
    value = None
    if error is None:
        try:
            value = float(place.evaluated(case, written)["value"])
        except SystemExit as fault:
            error = f"its model cannot be run: {fault}"
    before = place.before(case)
    return {
        "id": name,
        "model": case.model,
        "tool": tool,
        "label": label,
        "file": written.name,
        "seconds": seconds,
        "metric": before["metric"],
        "before": before["value"],
        "after": value,
        "points": None if value is None else (before["value"] - value) / point(case.model),
        "error": None if error is None else place.anonymous(error),
    }


def _file(place: Place, name: str) -> Path:
    kept = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)
    return place.out / "models" / f"{kept}.onnx"


def _latencies(case: Case, place: Place, kept: Path, *, again: bool) -> None:
    """Measures the input model and all variants worth it in one run, unless these were measured already."""
    from runtime_bench import Target, compare

    rows = {name: row for name, row in read_lines(kept).items() if row["model"] == case.model}
    worth = {name: row for name, row in rows.items() if row["points"] is not None and row["points"] <= WORTH_MEASURING}
    timed = place.out / "latencies.jsonl"
    known = read_lines(timed).get(case.model, {}).get("speedups", {})
    if not worth or (set(known) == set(worth) and not again):
        return
    print(f"{case.model}: {len(worth)} models against the input ...", file=sys.stderr, flush=True)
    facts = machine(THREADS)
    done = compare(
        [place.start(case), *(place.out / "models" / row["file"] for row in worth.values())],
        Target("cpu", threads=THREADS, batch=1, shapes=tuple(case.input_shapes.items())),
        _samples(case, place),
        launches=LAUNCHES,
        blocks=BLOCKS,
        seed=1,
        max_seconds=MOST_MEASURING_SECONDS,
    )
    speedups = {name: done.speedup(arm).to_json() for arm, name in enumerate(worth, 1)}
    baseline = {"p50_ms": done.baseline.timing.p50_ms, "seconds": round(done.seconds, 1)}
    append_line(timed, {"id": case.model, "machine": facts, "input": baseline, "speedups": speedups})


def _samples(case: Case, place: Place) -> dict[str, np.ndarray]:
    with np.load(place.out / str(place.calibration(case))) as arrays:
        return cut({name: arrays[name][:MEASURED_SAMPLES] for name in arrays.files}, case.input_shapes)


def cut(samples: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Samples cut to what `--input-shape` says of an input: that one, and all that are as large, such as its mask."""
    found = dict(samples)
    for name, shape in shapes.items():
        whole, kept = found[name].shape, (slice(None), *map(slice, shape[1:]))
        found = {key: values[kept] if values.shape == whole else values for key, values in found.items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
