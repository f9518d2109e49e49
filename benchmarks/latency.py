"""Latencies of the zoo at full width: as it is, after the lossless passes, and in 8 bits.

    python benchmarks/latency.py --zoo PATH [--out FOLDER] [--only MODEL] [--quick] [--again] [--record] [--table]

Every model is measured twice by the full protocol: input, lossless and static u8 (the shape of a certification, whose
seconds are shown), and input, static s8 and dynamic. The model of --control is compared with itself ten times by
`onnxprune bench`, which must never say FASTER or SLOWER. FOLDER keeps one JSON line a model; a model that has one is
not measured again without --again. Exit code 1 where a control finds a difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cases import CASES, Case
from command import run
from place import Place
from recording import ZOO_VARIABLE, append_line, machine, machines_text, markdown_table, read_lines, record, zoo_path

if TYPE_CHECKING:
    from onnxprune.search.prepare import Prepared
    from passes.quantization import Scheme

SECTION = "latency"
THREADS = 1
CONTROLS = 10
FULL, QUICK = (6, 8), (2, 3)
CALIBRATION_SAMPLES = 96
VARIANTS = ("lossless", "static u8", "static s8", "dynamic")
LATENCY_HEAD = ("model", "P50, ms", "P90, ms", *VARIANTS, "certification, s")
CONTROL_HEAD = ("seed", "ratio", "lower", "upper", "verdict", "seconds")


def main() -> int:
    """Measures what is asked for and prints the tables."""
    asked = _arguments()
    out: Path = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    files = out / "models.jsonl", out / "controls.jsonl"
    if not asked.table:
        zoo = zoo_path(asked.zoo)
        _models(asked, zoo, out, files[0])
        if not asked.only or asked.only == asked.control:
            _controls(asked, zoo, files[1])
    rows, controls = (read_lines(path) for path in files)
    text = "\n\n".join(part for part in (latency_text(rows), control_text(controls)) if part)
    print(text)
    if asked.record:
        record(SECTION, f"## Latency\n\nBy `python benchmarks/latency.py --record`.\n\n{text}")
    return int(any(row["verdict"] != "INCONCLUSIVE" for row in controls.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", help=f"folder with the zoo of trained models; default: ${ZOO_VARIABLE}")
    parser.add_argument("--out", type=Path, default=Path("build/latency"), help="default: %(default)s")
    parser.add_argument("--only", metavar="MODEL", help="only this model")
    parser.add_argument(
        "--control", metavar="MODEL", default="resnet20", help="compared with itself; default: resnet20"
    )
    parser.add_argument("--quick", action="store_true", help="fewer launches and blocks: for trying the script")
    parser.add_argument("--again", action="store_true", help="measure models again that were measured before")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the tables of what was measured")
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    return parser.parse_args()


def starts() -> dict[str, Case]:
    """One case of every model file of the acceptance table: it knows the file, the options and the data."""
    found: dict[str, Case] = {}
    for case in CASES:
        stem = Path(case.file).stem
        name = case.model if stem == "model" else f"{case.model}/{stem}"
        found.setdefault(name, case)
    return found


def _models(asked: argparse.Namespace, zoo: Path, out: Path, file: Path) -> None:
    cases = {name: case for name, case in starts().items() if not asked.only or case.model == asked.only}
    if not cases:
        raise SystemExit(f"no model {asked.only!r} in the table")
    for name, case in cases.items():
        if asked.again or name not in read_lines(file):
            print(f"{name} ...", file=sys.stderr, flush=True)
            effort = QUICK if asked.quick else FULL
            append_line(file, {"id": name, "quick": asked.quick, **measured(case, zoo, out, effort)})


def measured(case: Case, zoo: Path, out: Path, effort: tuple[int, int]) -> dict[str, Any]:
    """Latencies of one model: the input's, and each variant's ratio to it or why there is none. effort: launches and
    blocks.
    """
    from onnxprune import ir
    from onnxprune.errors import OnnxpruneError

    facts = machine(THREADS)
    try:
        ready = _prepared(case, zoo, out)
    except OnnxpruneError as error:
        return {"machine": facts, "latency": {}, "reasons": {"input": str(error)}, "certification_seconds": None}
    with tempfile.TemporaryDirectory(prefix="onnxprune-latency-") as folder:
        lossless = Path(folder, "lossless.onnx")
        ir.save(ready.base, lossless, overwrite=True)
        made, reasons = _variants(ready, Path(folder))
        made["lossless"] = lossless
        found: dict[str, Any] = {}
        for group in (VARIANTS[:2], VARIANTS[2:]):
            there = {name: made[name] for name in group if name in made}
            try:
                found = {**_compared(ready, there, effort), **found} if there else found
            except OnnxpruneError as error:
                reasons.update(dict.fromkeys(there, str(error)))
    return {"machine": facts, "latency": found, "reasons": reasons, "certification_seconds": found.pop("seconds", None)}


def _compared(ready: Prepared, variants: Mapping[str, Path], effort: tuple[int, int]) -> dict[str, Any]:
    """The input's latency, each variant's ratio to it, and the seconds that the comparison took."""
    from runtime_bench import Target, compare

    target = Target("cpu", threads=THREADS, batch=1, shapes=tuple(ready.input_shapes.items()))
    arrays = ready.feeds.measured()
    models = [ready.path, *variants.values()]
    done = compare(models, target, arrays, launches=effort[0], blocks=effort[1], seed=1)
    timing = done.baseline.timing
    return {
        "input": {"p50_ms": timing.p50_ms, "p90_ms": timing.p90_ms},
        "seconds": round(done.seconds, 2),
        **{name: done.speedup(arm).to_json() for arm, name in enumerate(variants, 1)},
    }


def _prepared(case: Case, zoo: Path, out: Path) -> Prepared:
    """The model in canonical form with its data, as the compiler prepares them."""
    from onnxprune.progress import SilentProgress
    from onnxprune.search.prepare import prepare

    data = Place(zoo, out).calibration(case)
    return prepare(
        zoo / case.model / case.file,
        calib_data=None if data is None else out / data,
        batch=1,
        input_shapes=case.input_shapes,
        freeze_initializers="--freeze-initializers" in case.options,
        keep_batchnorm=False,
        seed=0,
        progress=SilentProgress(),
    )


def _schemes() -> dict[str, Scheme]:
    from passes.quantization import Scheme

    return {
        "static u8": Scheme(kind="static", activation="u8"),
        "static s8": Scheme(kind="static", activation="s8"),
        "dynamic": Scheme(kind="dynamic"),
    }


def _variants(ready: Prepared, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of the quantized models, and why there is none of the others."""
    from onnxprune import ir
    from onnxprune.errors import OnnxpruneError
    from passes.quantization import quantize

    feeds = ready.feeds.first(CALIBRATION_SAMPLES)
    made, reasons = {}, {}
    for name, scheme in _schemes().items():
        try:
            model = quantize(ready.base, feeds, scheme)
        except OnnxpruneError as error:
            reasons[name] = str(error)
            continue
        made[name] = folder / f"{name.replace(' ', '-')}.onnx"
        ir.save(model, made[name], overwrite=True)
    return made, reasons


def _controls(asked: argparse.Namespace, zoo: Path, file: Path) -> None:
    """The A/A tests: one model against itself with ten seeds."""
    case = starts().get(asked.control)
    if case is None:
        raise SystemExit(f"no model {asked.control!r} in the table")
    model = str(zoo / case.model / case.file)
    for seed in range(2 if asked.quick else CONTROLS):
        name = f"{asked.control} {seed}"
        if not asked.again and name in read_lines(file):
            continue
        print(f"{name}: against itself ...", file=sys.stderr, flush=True)
        facts = machine(THREADS)
        arguments = ["bench", model, model, "--threads", str(THREADS), "--seed", str(seed), "--format", "json"]
        ran = run([sys.executable, "-P", "-m", "onnxprune", *arguments], cwd=file.parent, timeout=600.0)
        if ran.exit_code:
            raise SystemExit(f"onnxprune bench failed: {ran.stderr.strip()[-300:]}")
        found = json.loads(ran.stdout)["measurements"][1]["speedup"]
        append_line(file, {"id": name, "seed": seed, "machine": facts, "seconds": round(ran.seconds, 2), **found})


def latency_text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of all models, and why variants are missing."""
    if not rows:
        return ""
    reasons = [f"- {name}, {variant}: {why}" for name, row in rows.items() for variant, why in row["reasons"].items()]
    quick = "Measured with --quick: bounds are loose. " if any(row["quick"] for row in rows.values()) else ""
    about = f"{quick}Ratios are to the input model, with their one-sided 95 % bounds; below 1 is faster."
    table = markdown_table(LATENCY_HEAD, [_latency_line(name, row) for name, row in rows.items()])
    return "\n\n".join([machines_text(rows.values()), about, table, *(["\n".join(reasons)] if reasons else [])])


def _latency_line(name: str, row: Mapping[str, Any]) -> list[str]:
    found, seconds = row["latency"], row["certification_seconds"]
    return [
        name,
        *(f"{found['input'][key]:.3f}" if found else "-" for key in ("p50_ms", "p90_ms")),
        *(ratio_text(found.get(variant)) for variant in VARIANTS),
        "-" if seconds is None else f"{seconds:.0f}",
    ]


def ratio_text(found: Mapping[str, Any] | None) -> str:
    """A ratio with its bounds; a dash where there is none."""
    if found is None:
        return "-"
    bounds = [found["lower95"], found["upper95"]]
    shown = " to ".join("?" if bound is None else f"{bound:.3f}" for bound in bounds)
    return f"{found['ratio']:.3f}x ({shown})"


def control_text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The A/A tests and their verdicts."""
    if not rows:
        return ""
    wrong = sum(row["verdict"] != "INCONCLUSIVE" for row in rows.values())
    models = ", ".join(dict.fromkeys(name.rpartition(" ")[0] for name in rows))
    head = f"{models} against itself {len(rows)} times (`onnxprune bench M M`): {wrong} said FASTER or SLOWER."
    table = markdown_table(CONTROL_HEAD, [_control_line(row) for row in rows.values()])
    return "\n\n".join(["### A/A", machines_text(rows.values()), head, table])


def _control_line(row: Mapping[str, Any]) -> Sequence[str]:
    numbers = ["?" if row[key] is None else f"{row[key]:.4f}" for key in ("ratio", "lower95", "upper95")]
    return [str(row["seed"]), *numbers, row["verdict"], f"{row['seconds']:.0f}"]


if __name__ == "__main__":
    sys.exit(main())
