"""Time and memory on large synthetic models, and whether they grow in proportion.

    python benchmarks/scale.py [--only chain|hidden|convolutions] [--record]

Every size is measured in fresh processes: `onnxprune analyze` as a whole, and import, canonicalisation, analysis and
export one by one. Steps and growth are in CPU seconds, which other work on the machine hardly changes; growth is the
exponent p of seconds ~ size^p between the two largest sizes: 1 is linear.
Exit code 1 where `onnxprune analyze` takes longer than it must at a size with a limit (2 s for 2,000 nodes).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command import Ran, run
from recording import machine, machines_text, markdown_table, record

SECTION = "scale"
MOST_SECONDS = 300.0
SIZES: dict[str, tuple[int, ...]] = {
    "chain": (2000, 5000, 10_000, 20_000),
    "hidden": (2048, 4096, 8192, 16_384),
    "convolutions": (2000, 5000, 10_000, 20_000),
}
LIMITS = {("chain", 2000): 2.0, ("convolutions", 2000): 2.0, ("chain", 10_000): 10.0, ("hidden", 8192): 10.0}  # seconds
WHAT = {"chain": "nodes in a residual chain", "hidden": "hidden units", "convolutions": "nodes with BatchNormalization"}
STEPS = ("import", "canonicalise", "analyse", "shares", "export")
HEAD = ("model", "size", "analyze, s", "CPU s", "peak MB", "groups", *(f"{s}, CPU s" for s in STEPS), "steps' peak MB")


def main() -> int:
    """Measures, prints the tables, and says whether the limit holds."""
    asked = _arguments()
    if asked.steps:
        print(json.dumps(steps(asked.steps)))
        return 0
    facts = machine(1)
    rows = [measured(case, size) for case in ([asked.only] if asked.only else SIZES) for size in SIZES[case]]
    text = "\n\n".join([machines_text([{"machine": facts}]), table(rows), growth(rows)])
    print(text)
    if asked.record:
        about = (
            "By `python benchmarks/scale.py --record`; the limit for `onnxprune analyze` (in bold) is 2 s for 2,000 "
            "nodes and 10 s for 10,000 nodes and for 8,192 hidden units."
        )
        record(SECTION, f"## Scale\n\n{about}\n\n{text}")
    return int(any(late(row) for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(SIZES), help="only this model")
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    parser.add_argument("--steps", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(case: str, size: int) -> dict[str, Any]:
    """One model at one size. SystemExit where a command fails."""
    import onnx
    from scale_models import MODELS

    print(f"{case} {size} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="onnxprune-scale-") as folder:
        model = Path(folder, "model.onnx")
        onnx.save(MODELS[case](size), str(model))
        whole = _ran([sys.executable, "-P", "-m", "onnxprune", "analyze", "model.onnx", "--format", "json"], folder)
        alone = _ran([sys.executable, str(Path(__file__).resolve()), "--steps", str(model)], folder)
    return {
        "case": case,
        "size": size,
        "analyze": whole.seconds,
        "analyze_cpu": whole.cpu_seconds,
        "analyze_bytes": whole.peak_bytes,
        "groups": len(json.loads(whole.stdout)["groups"]),
        **json.loads(alone.stdout),
        "steps_bytes": alone.peak_bytes,
    }


def _ran(argv: Sequence[str], folder: str) -> Ran:
    ran = run(argv, cwd=Path(folder), environment={"OMP_NUM_THREADS": "1"}, timeout=MOST_SECONDS)
    if ran.exit_code:
        raise SystemExit(f"{' '.join(argv[2:])} failed with exit code {ran.exit_code}: {ran.stderr.strip()[-300:]}")
    return ran


def steps(path: Path) -> dict[str, float]:
    """CPU seconds of each step on one model file, after all imports, with those of processes that it starts."""
    from onnxprune import channels, ir
    from onnxprune.canonical import canonicalize_model

    marks = [_cpu_seconds()]
    model = ir.load(path)
    marks.append(_cpu_seconds())
    base, _ = canonicalize_model(model)
    marks.append(_cpu_seconds())
    ir.infer_shapes(base)
    graph = channels.analyze(base)
    marks.append(_cpu_seconds())
    graph.shares(base, ir.shapes_for(base, {}))
    marks.append(_cpu_seconds())
    ir.save(base, path.with_name("exported.onnx"))
    marks.append(_cpu_seconds())
    return {step: end - begin for step, begin, end in zip(STEPS, marks, marks[1:], strict=False)}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def late(row: dict[str, Any]) -> bool:
    """Whether `onnxprune analyze` took too long at the size that the limit is for."""
    return bool(row["analyze"] > LIMITS.get((row["case"], row["size"]), math.inf))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A row a model and size."""
    return markdown_table(HEAD, [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> list[str]:
    whole = f"{row['analyze']:.2f}"
    return [
        WHAT[row["case"]],
        f"{row['size']:,}",
        f"**{whole}**" if (row["case"], row["size"]) in LIMITS else whole,
        f"{row['analyze_cpu']:.2f}",
        f"{row['analyze_bytes'] / 1e6:.0f}",
        str(row["groups"]),
        *(f"{row[step]:.3f}" for step in STEPS),
        f"{row['steps_bytes'] / 1e6:.0f}",
    ]


def growth(rows: Sequence[dict[str, Any]]) -> str:
    """The exponents between the two largest sizes of each model."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        small, large = sorted((row for row in rows if row["case"] == case), key=lambda row: int(row["size"]))[-2:]
        lines.append([WHAT[case], *(f"{exponent(small, large, key):.2f}" for key in ("analyze_cpu", *STEPS))])
    return markdown_table(("growth (1 is linear)", "analyze, whole command", *STEPS), lines)


def exponent(small: dict[str, Any], large: dict[str, Any], key: str) -> float:
    """p of time ~ size^p."""
    return math.log(large[key] / small[key]) / math.log(large["size"] / small["size"])


if __name__ == "__main__":
    sys.exit(main())
