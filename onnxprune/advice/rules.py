"""The table of rules: each says one thing about a model, when it holds, and on whose word.

Sources are surveys and papers by arXiv number, for what they state in general, and documents of this repository, for
what was measured here. A rule names the option to give where there is one; it never names what the tool cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from onnxprune.advice.facts import Facts
from onnxprune.advice.words import causes, count, kinds, percent, work

Section = Literal["try", "cannot", "help"]
COMPRESSION, QUANTIZATION, RESULTS = "docs/compression.md", "docs/quantization.md", "benchmarks/RESULTS.md"

INT8_RATIO = 0.38
"""Lowest latency ratio of a whole model in 8 bits at full width on a processor with VNNI (squeezenet11, RESULTS.md)."""
ENOUGH_SAMPLES = 256
FEW_MACS_LEFT = 0.02  # frozen shares under this are not worth a line
HARD = 0.5  # targets under this cost accuracy without fast 8-bit arithmetic
VERY_HARD = 0.35


@dataclass(frozen=True)
class Rule:
    """One row. when: whether it holds. says: the advice, with the model's numbers. because: why, in general. source:
    who says so. gives: the option or command that it is about, "" for none.
    """

    name: str
    section: Section
    when: Callable[[Facts], bool]
    says: Callable[[Facts], str]
    because: str
    source: str
    gives: str = ""


def _floor(f: Facts) -> float:
    """About the lowest latency ratio that what stays allows, its 8-bit part in 8 bits where those are fast."""
    eight = f.graph.int8 if f.host.fast_int8 else 0.0
    return f.pruning.floor * (1 - eight * (1 - INT8_RATIO)) * min(f.latency.lossless or 1.0, 1.0)


def _searchable(f: Facts) -> bool:
    return f.pruning.usable > 0 or f.pruning.branches > 0


def _wants(f: Facts, under: float) -> bool:
    return f.target is not None and f.target < under and not met_already(f)


def met_already(f: Facts) -> bool:
    return f.target is not None and (f.latency.lossless or 1.0) <= f.target


def _transformer(f: Facts) -> bool:
    return f.graph.family == "transformer"


def _float_graph(f: Facts) -> bool:
    return not f.graph.quantized and f.graph.int8 > 0


def _few_rows(f: Facts) -> bool:
    """Most products meet so few rows that reading their weights takes the time: fewer bytes are faster anywhere."""
    return f.graph.loose > HARD and f.graph.dynamic > HARD


TRIED = (
    Rule(
        "lossless",
        "try",
        lambda f: f.latency.lossless is not None and f.latency.lossless < 0.97,
        lambda f: f"the canonical form without any loss: measured at {f.latency.lossless:.2f}x of the input model",
        "constants folded, BatchNormalization and identities gone; it is the first candidate, and enough if it meets "
        "the target",
        "measured now",
    ),
    Rule(
        "widths",
        "try",
        lambda f: f.pruning.usable > 0 and not _transformer(f),
        lambda f: f"narrower {kinds(f.pruning)}: up to {percent(f.pruning.prunable.macs)} of the MACs can go",
        "whole units leave, so every runtime gets faster, without sparse kernels",
        "arXiv 2303.00566, 2308.06767",
    ),
    Rule(
        "heads",
        "try",
        lambda f: f.pruning.usable > 0 and _transformer(f),
        lambda f: f"fewer {kinds(f.pruning)}: up to {percent(f.pruning.prunable.macs)} of the MACs can go",
        "heads and neurons can leave after training: three in four of MiniLM's neurons cost 0.006 of 0.820",
        f"arXiv 2204.09656, 2302.04089; {COMPRESSION}",
    ),
    Rule(
        "second-order",
        "try",
        lambda f: _searchable(f) and f.data.given,
        lambda f: f"units ranked by second-order error, what stays re-fitted by {count(f.data.samples, 'sample')}",
        "half of ResNet-56's MACs: 91.7 % top-1 left of 93.4, and 12.4 by magnitude alone",
        f"arXiv 2203.07259; {COMPRESSION}",
    ),
    Rule(
        "depth",
        "try",
        lambda f: f.pruning.branches > 0,
        lambda f: (
            f"whole residual branches: {f.pruning.branches} could go, with {percent(f.pruning.branch_macs)} of the MACs"
        ),
        "a branch that goes takes whole kernels along; 8 of ResNet-56's 27 gone leave 91.9 % top-1 of 93.4",
        COMPRESSION,
        "--no-drop-branches keeps them",
    ),
    Rule(
        "static-int8",
        "try",
        lambda f: _float_graph(f) and f.host.fast_int8 and f.graph.int8 > f.graph.dynamic,
        lambda f: f"static int8 for {percent(f.graph.int8)} of the MACs, nodes that lose too much left in float",
        "8 bits after training come close to float in most networks; alone it took squeezenet11 to 0.38x",
        f"arXiv 2106.08295; {RESULTS}",
        "--precision fp32 leaves it out",
    ),
    Rule(
        "dynamic-int8",
        "try",
        lambda f: not f.graph.quantized and f.graph.dynamic > 0.1 and (f.host.fast_int8 or _few_rows(f)),
        lambda f: f"dynamic int8 for {percent(f.graph.dynamic)} of the MACs (MatMul, Gemm)",
        "closer than static int8 in transformers (MiniLM ran at 0.28x with it), and less to read where rows are few",
        f"{QUANTIZATION}, {RESULTS}",
        "--precision fp32 leaves it out",
    ),
    Rule(
        "weight-only",
        "try",
        lambda f: f.graph.heavy,
        lambda f: "4-bit weights of MatMul and Gemm, which hold most of the weights",
        "one row took 0.19x to 0.64x of the float product; from 32 rows on it is slower",
        QUANTIZATION,
        "--precision fp32 leaves it out",
    ),
    Rule(
        "measured",
        "try",
        _searchable,
        lambda f: f"all at once, by the latency of every level on {' and '.join(f.host.eps)}, not by MACs",
        "a table of latencies of the place where it will run, and one integer programme over it, decide",
        "arXiv 2302.04089; docs/search.md",
    ),
)

LIMITS = (
    Rule(
        "nothing",
        "cannot",
        lambda f: not f.pruning.groups and not f.pruning.branches and not f.graph.overridable,
        lambda f: f"pruning: {f.pruning.nothing}",
        "without units that only weights make and only weights read, nothing can leave unnoticed",
        "docs/analyze.md",
        "onnxprune analyze MODEL lists the reasons",
    ),
    Rule(
        "overridable",
        "cannot",
        lambda f: f.graph.overridable > 0,
        lambda f: (
            f"a smaller or faster form of {count(f.graph.overridable, 'weight')} that are graph inputs with "
            "defaults: callers may replace them"
        ),
        "the runtime folds and packs constants only: ultraface_rfb320 took 0.35x once its weights were constants",
        f"docs/decisions.md, {RESULTS}",
        "--freeze-initializers makes them constants",
    ),
    Rule(
        "frozen",
        "cannot",
        lambda f: f.pruning.groups > 0 and 1 - f.pruning.prunable.macs >= FEW_MACS_LEFT,
        lambda f: f"{percent(1 - f.pruning.prunable.macs)} of the MACs stay: {causes(f.pruning)}",
        "what is not known to be safe is frozen",
        "docs/channels.md",
        "onnxprune analyze MODEL says why, axis by axis",
    ),
    Rule(
        "below-floor",
        "cannot",
        lambda f: f.target is not None and f.target < _floor(f),
        lambda f: (
            f"{f.target_text}: what stays whatever is pruned takes about {_floor(f):.2f}x of the latency by its MACs"
        ),
        "the run will end with exit code 4 and the lowest latency that it measured",
        "the graph",
        "a higher --target-latency",
    ),
    Rule(
        "hidden",
        "cannot",
        lambda f: f.pruning.hidden > 0,
        lambda f: f"latency levels for {count(f.pruning.hidden, 'group')} inside subgraphs: they keep their widths",
        "how often a body runs depends on the input, so none can be measured apart",
        "docs/search.md",
        "onnxprune prune MODEL --macs narrows them",
    ),
    Rule(
        "slow-int8",
        "cannot",
        lambda f: _float_graph(f) and not f.host.fast_int8 and not _few_rows(f) and "cpu" in f.host.eps,
        lambda f: (
            "speed from int8: this processor has no 8-bit dot products"
            + (", and sums saturate, so weights would keep to 7 bits" if f.host.saturates else "")
        ),
        "int8 took 0.92x to 1.19x of the float latency on such a processor; it is tried, and kept only where faster",
        "docs/advise.md",
        "--precision fp32 saves the time to try",
    ),
    Rule(
        "quantized",
        "cannot",
        lambda f: f.graph.quantized,
        lambda f: "another precision: the model is quantized already, and only widths and branches are searched",
        "weights that were rounded once are not rounded again; those that stay are re-fitted in 8 bits",
        QUANTIZATION,
        "start from the float model if there is one",
    ),
    Rule(
        "not-float32",
        "cannot",
        lambda f: not f.graph.quantized and f.graph.float_type not in ("", "float32"),
        lambda f: f"int8: the weights are {f.graph.float_type}, and 8-bit forms are made from float32",
        "",
        QUANTIZATION,
        "start from the float32 model if there is one",
    ),
    Rule(
        "opset",
        "cannot",
        lambda f: _float_graph(f) and f.graph.opset < 13,
        lambda f: f"int8 at opset {f.graph.opset}: a result in int8 has opset 13",
        "scales for each channel start there",
        QUANTIZATION,
        "--precision fp32 keeps the opset",
    ),
    Rule(
        "call-bound",
        "cannot",
        lambda f: f.graph.macs > 0 and f.fixed_share > HARD,
        lambda f: f"latency in proportion to MACs: {work(f)} in {f.graph.nodes} nodes, which is about what calls cost",
        "a call takes some microseconds and a node about one, at any width",
        "docs/advise.md",
    ),
    Rule(
        "depthwise",
        "cannot",
        lambda f: f.graph.family == "depthwise CNN" and _float_graph(f) and f.host.fast_int8,
        lambda f: (
            f"much from int8 alone: {percent(f.graph.loose)} of the MACs do fewer than 2 a byte, depthwise ones "
            "among them"
        ),
        "depthwise convolutions wait for memory, and their channels differ in range; mobilenetv1 0.25 got to 0.78x",
        f"arXiv 1906.04721; {RESULTS}",
    ),
    Rule(
        "accuracy",
        "cannot",
        lambda f: _wants(f, HARD) and not f.host.fast_int8 and f.graph.family.endswith("CNN"),
        lambda f: f"{f.target_text} for nothing: in float, accuracy pays for it, since nothing is trained again",
        "half of the MACs cost ResNet-56 2.0 points and ResNet-20 5.2",
        RESULTS,
        "--max-drop with --eval refuses what loses too much",
    ),
)

HELP = (
    Rule(
        "target",
        "help",
        lambda f: f.target is None and _searchable(f),
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
        lambda f: f.data.given and f.data.samples < ENOUGH_SAMPLES and _searchable(f),
        lambda f: f"more calibration samples than {f.data.samples}: {ENOUGH_SAMPLES} or more",
        "MiniLM kept 0.8134 of 0.8203 with 256 sentences and 0.8146 with 512; an eighth is held out to judge",
        COMPRESSION,
        "--calib-data",
    ),
    Rule(
        "metric",
        "help",
        _searchable,
        lambda f: "your own metric: without one, the change of the outputs decides",
        "outputs can drift by 0.24 without any loss (MiniLM), or by 0.32 with 5 points (ResNet-20)",
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
        lambda f: _wants(f, VERY_HARD),
        lambda f: "a smaller network trained for the same task, if there is one: compare it first",
        "pruned models seldom beat a better architecture of the same size",
        "arXiv 2003.03033",
        "onnxprune bench MODEL OTHER",
    ),
)

RULES = (*TRIED, *LIMITS, *HELP)


def holding(facts: Facts, section: Section) -> Iterator[Rule]:
    """The rules of a section that hold, in the order of the table."""
    return (rule for rule in RULES if rule.section == section and rule.when(facts))


def _assumed(f: Facts) -> str:
    return ", ".join(dict.fromkeys("x".join(map(str, f.graph.inputs[name])) for name in f.graph.open_inputs[:3]))
