"""What cannot be had, and the option that changes it where there is one."""

from __future__ import annotations

from onnxprune.advice.facts import Facts
from onnxprune.advice.rules.rule import (
    HARD,
    QUANTIZATION,
    RESULTS,
    Rule,
    few_rows,
    float_graph,
    wants,
)
from onnxprune.advice.words import causes, count, percent, work

INT8_RATIO = 0.38
"""Lowest latency ratio of a whole model in 8 bits at full width on a processor with VNNI (squeezenet11, RESULTS.md)."""
FEW_MACS_LEFT = 0.02  # frozen shares under this are not worth a line


def _floor(f: Facts) -> float:
    """About the lowest latency ratio that what stays allows, its 8-bit part in 8 bits where those are fast."""
    eight = f.graph.int8 if f.host.fast_int8 else 0.0
    return f.pruning.floor * (1 - eight * (1 - INT8_RATIO)) * min(f.latency.lossless or 1.0, 1.0)


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
        lambda f: float_graph(f) and not f.host.fast_int8 and not few_rows(f) and "cpu" in f.host.eps,
        lambda f: (
            "speed from int8: this processor has no 8-bit dot products"
            + (", and sums saturate, so weights would keep to 7 bits" if f.host.saturates else "")
        ),
        "int8 took 0.92x to 3x of the float latency on such a processor; it is tried, and kept only where faster",
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
        lambda f: float_graph(f) and f.graph.opset < 13,
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
        lambda f: f.graph.family == "depthwise CNN" and float_graph(f) and f.host.fast_int8,
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
        lambda f: wants(f, HARD) and not f.host.fast_int8 and f.graph.family.endswith("CNN"),
        lambda f: f"{f.target_text} for nothing: in float, accuracy pays for it, since nothing is trained again",
        "half of the MACs cost ResNet-56 0.9 points and ResNet-20 2.5",
        RESULTS,
        "--max-drop with --eval refuses what loses too much",
    ),
)
