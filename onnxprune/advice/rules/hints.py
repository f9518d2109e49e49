"""What the user could give or do for a better result."""

from __future__ import annotations

from onnxprune.advice.facts import Facts
from onnxprune.advice.rules.rule import COMPRESSION, RESULTS, Rule, searchable, wants

ENOUGH_SAMPLES = 256
VERY_HARD = 0.35


def _assumed(f: Facts) -> str:
    return ", ".join(dict.fromkeys("x".join(map(str, f.graph.inputs[name])) for name in f.graph.open_inputs[:3]))


HINTS = (
    Rule(
        "target",
        "help",
        lambda f: f.target is None and searchable(f),
        lambda f: "a target: a latency, a size, the loss that is allowed, or a row of models along the front",
        "a search spends all that its target leaves",
        "docs/search.md",
        "--target-latency 0.5x, --target-size, --max-drift or --pareto N",
    ),
    Rule(
        "data",
        "help",
        lambda f: not f.data.given,
        lambda f: "typical inputs, no labels, a few hundred: without them inputs are made up",
        "ranges, ranking and re-fitting then follow noise, and drift says little about real data",
        "docs/search.md",
        "--calib-data inputs.npz",
    ),
    Rule(
        "more-data",
        "help",
        lambda f: f.data.given and f.data.samples < ENOUGH_SAMPLES and searchable(f),
        lambda f: f"more calibration samples than {f.data.samples}: {ENOUGH_SAMPLES} or more",
        "MiniLM kept 0.8134 of 0.8203 with 256 sentences and 0.8146 with 512; an eighth is held out to judge",
        COMPRESSION,
        "--calib-data",
    ),
    Rule(
        "metric",
        "help",
        searchable,
        lambda f: "your own metric: without one, the change of the outputs decides",
        "a drift of 0.3 came with 2.5 points lost (ResNet-20) and with 54 (SqueezeNet)",
        RESULTS,
        "--eval FILE.py:FUNC, or --eval-data",
    ),
    Rule(
        "open-shape",
        "help",
        lambda f: bool(f.graph.open_inputs),
        lambda f: f"the real size of {', '.join(f.graph.open_inputs[:3])}; {_assumed(f)} was assumed",
        "a latency holds for the shape it was measured at",
        "docs/benchmarking.md",
        "--input-shape",
    ),
    Rule(
        "threads",
        "help",
        lambda f: f.host.threads > 1 and not f.host.threads_given,
        lambda f: f"the threads of the place where it will run; {f.host.threads} were assumed",
        "what narrower layers save depends on how many threads share them",
        "docs/benchmarking.md",
        "--threads N",
    ),
    Rule(
        "smaller-network",
        "help",
        lambda f: wants(f, VERY_HARD),
        lambda f: "a smaller network trained for the same task, if there is one: compare it first",
        "pruned models seldom beat a better architecture of the same size",
        "arXiv 2003.03033",
        "onnxprune bench MODEL OTHER",
    ),
)
