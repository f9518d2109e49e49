"""Switches one ingredient of the search off at a time, and prints what each is worth at the same target.

    python benchmarks/ablation.py --zoo PATH [--out FOLDER] [--only MODEL] [--without A,B] [--targets MODEL=0.5x,...]
                                  [--effort fast|normal|best] [--seed 0] [--again] [--table] [--record]

Each row is one `onnxprune.compress(..., without={...})` with an empty latency cache; the zoo's own `zoo.py` evaluates
its model. FOLDER keeps one JSON line a row in rows.jsonl; a row that has one is not run again without --again. A target
is worth asking for where the whole search meets it with some loss: at one that 8 bits alone meet, nothing else matters.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import Case
from peer_table import starts
from place import Place
from recording import append_line, machine, machines_text, markdown_table, read_lines, record, zoo_path

THREADS = 1
SECTION = "ablation"
NOTHING = "nothing"
TARGETS = {"resnet20": "0.6x", "espcn_superres": "0.4x", "unet_sed": "0.4x"}
HEAD = (
    "model",
    "target",
    "without",
    "metric",
    "lost",
    "more than with all",
    "drift",
    "ratio",
    "landing",
    "seconds",
    "met",
)

Row = Mapping[str, Any]


def main() -> int:
    """Runs what is asked for and prints the table."""
    asked = _arguments()
    out: Path = asked.out.resolve()
    (out / "models").mkdir(parents=True, exist_ok=True)
    lines = out / "rows.jsonl"
    if not asked.table:
        place = Place(zoo_path(asked.zoo), out)
        targets = TARGETS | asked.targets
        for model in (name for name in targets if asked.only in (None, name)):
            for without in _switched(asked.without):
                name = row_id(model, targets[model], without, asked.effort, asked.seed)
                if asked.again or name not in read_lines(lines):
                    print(f"{name} ...", file=sys.stderr, flush=True)
                    case = replace(starts()[model], target=targets[model])
                    append_line(lines, {"id": name, **measured(case, without, asked.effort, asked.seed, place)})
    text = table(read_lines(lines))
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if asked.record:
        record(SECTION, f"## Ablation\n\nBy `python benchmarks/ablation.py --record`.\n\n{text}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", help="folder with the zoo of trained models; default: $ONNXPRUNE_ZOO")
    parser.add_argument("--out", type=Path, default=Path("build/ablation"), help="default: %(default)s")
    parser.add_argument("--only", metavar="MODEL", help="only this model")
    parser.add_argument("--without", metavar="A,B", help=f"only these, such as '{NOTHING},depth'; default: all")
    parser.add_argument("--targets", type=_targets, default={}, metavar="MODEL=0.5x", help=f"default: {TARGETS}")
    parser.add_argument("--effort", default="normal", choices=("fast", "normal", "best"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="run rows again that were run before")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of what was run")
    parser.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


def _targets(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(","))


def _switched(text: str | None) -> tuple[str, ...]:
    """What is switched off, one row each; the first row has everything."""
    from onnxprune.search.options import INGREDIENTS

    return tuple(text.split(",")) if text else (NOTHING, *INGREDIENTS)


def row_id(model: str, target: str, without: str, effort: str, seed: int) -> str:
    """Under which a row is kept."""
    return f"{model} {target} {effort} {seed} without {without}"


def measured(case: Case, without: str, effort: str, seed: int, place: Place) -> dict[str, Any]:
    """Runs one row and returns everything that is recorded of it."""
    import onnxprune
    from onnxprune.errors import OnnxpruneError

    written = place.out / "models" / f"{case.model}-{without}.onnx"
    data, before, facts = place.calibration(case), place.before(case), machine(THREADS)
    begin, error, after = time.perf_counter(), None, None
    with tempfile.TemporaryDirectory(prefix="onnxprune-cache-") as cache:
        try:
            report = onnxprune.compress(
                place.start(case),
                target_latency=case.target,
                calib_data=None if data is None else place.out / data,
                output=written,
                threads=THREADS,
                input_shapes=case.input_shapes,
                cache_dir=cache,
                effort=effort,
                seed=seed,
                without=() if without == NOTHING else (without,),
            ).report
        except OnnxpruneError as fault:
            error, report = place.anonymous(str(fault)), getattr(fault, "report", None)
    seconds = round(time.perf_counter() - begin, 1)
    if error is None:
        after = place.evaluated(case, written)["value"]
    return {
        "model": case.model,
        "target": case.target,
        "without": without,
        "effort": effort,
        "seed": seed,
        "machine": facts,
        "seconds": seconds,
        "metric": before["metric"],
        "before": before["value"],
        "after": after,
        "error": error,
        **from_report(report, float(case.target.removesuffix("x"))),
    }


def from_report(report: Row | None, goal: float) -> dict[str, Any]:
    """What a row keeps of a report; None for what it does not say."""
    facts = report or {}
    speedup: Row = next(iter(facts.get("speedup", {}).values()), {})
    ratio = speedup.get("ratio")
    return {
        "met": bool(facts.get("met")),
        "ratio": ratio,
        "landing": None if ratio is None else ratio / goal,
        "floor": next(iter(facts.get("floor", {}).values()), None),
        "drift": (facts.get("drift") or {}).get("value"),
        "stages": facts.get("stages", {}),
    }


def table(rows: Mapping[str, Row]) -> str:
    """The Markdown of all rows that were run, and why some have no model."""
    if not rows:
        return "No row was run."
    whole = {_group(row): row for row in rows.values() if row["without"] == NOTHING}
    lines = [_line(row, whole.get(_group(row))) for row in rows.values()]
    notes = "\n".join(
        f"- {row['model']} without {row['without']}: {row['error']}" for row in rows.values() if row["error"]
    )
    about = (
        f"Efforts: {', '.join(dict.fromkeys(row['effort'] for row in rows.values()))}. "
        "Lost is against the input model's metric; drift is the relative error of the outputs on held-out samples."
    )
    return "\n\n".join(
        part for part in (machines_text(rows.values()), about, markdown_table(HEAD, lines), notes) if part
    )


def _group(row: Row) -> tuple[Any, ...]:
    return row["model"], row["target"], row["effort"], row["seed"]


def _line(row: Row, whole: Row | None) -> list[str]:
    return [
        row["model"],
        row["target"],
        row["without"],
        _number(row["after"], 4),
        _number(_lost(row), 4),
        _number(_further(row, whole), 4),
        _number(row["drift"], 3),
        _number(row["ratio"], 3) if row["floor"] is None else f"floor {row['floor']:.3f}",
        _number(row["landing"], 3),
        f"{row['seconds']:.0f}",
        "yes" if row["met"] else "no",
    ]


def _lost(row: Row) -> float | None:
    return None if row["after"] is None else row["before"] - row["after"]


def _further(row: Row, whole: Row | None) -> float | None:
    """What a row loses more than the one with everything."""
    if whole is None or whole is row or row["after"] is None or whole["after"] is None:
        return None
    return float(whole["after"] - row["after"])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
