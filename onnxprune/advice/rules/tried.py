"""What a compression will try."""

from __future__ import annotations

from onnxprune.advice.rules.rule import (
    COMPRESSION,
    QUANTIZATION,
    RESULTS,
    Rule,
    few_rows,
    float_graph,
    searchable,
    transformer,
)
from onnxprune.advice.words import count, kinds, percent

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
        lambda f: f.pruning.usable > 0 and not transformer(f),
        lambda f: f"narrower {kinds(f.pruning)}: up to {percent(f.pruning.prunable.macs)} of the MACs can go",
        "whole units leave, so every runtime gets faster, without sparse kernels",
        "arXiv 2303.00566, 2308.06767",
    ),
    Rule(
        "heads",
        "try",
        lambda f: f.pruning.usable > 0 and transformer(f),
        lambda f: f"fewer {kinds(f.pruning)}: up to {percent(f.pruning.prunable.macs)} of the MACs can go",
        "heads and neurons can leave after training: three in four of MiniLM's neurons cost 0.006 of 0.820",
        f"arXiv 2204.09656, 2302.04089; {COMPRESSION}",
    ),
    Rule(
        "second-order",
        "try",
        lambda f: searchable(f) and f.data.given,
        lambda f: f"units ranked by second-order error, what stays re-fitted by {count(f.data.samples, 'sample')}",
        "half of ResNet-56's MACs: 92.5 % top-1 left of 93.4, and 12.4 by magnitude alone",
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
        lambda f: float_graph(f) and f.host.fast_int8 and f.graph.int8 > f.graph.dynamic,
        lambda f: f"static int8 for {percent(f.graph.int8)} of the MACs, nodes that lose too much left in float",
        "8 bits after training come close to float in most networks; alone it took squeezenet11 to 0.38x",
        f"arXiv 2106.08295; {RESULTS}",
        "--precision fp32 leaves it out",
    ),
    Rule(
        "dynamic-int8",
        "try",
        lambda f: not f.graph.quantized and f.graph.dynamic > 0.1 and (f.host.fast_int8 or few_rows(f)),
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
        "half",
        "try",
        lambda f: f.graph.float_type == "float32" and not f.graph.quantized and set(f.host.eps) != {"cpu"},
        lambda f: f"float16 on {' and '.join(f.host.eps)}, inputs and outputs as they are",
        "half of the bytes; what meets numbers that are too large stays in float32",
        QUANTIZATION,
        "--precision fp32,int8 leaves it out",
    ),
    Rule(
        "measured",
        "try",
        searchable,
        lambda f: f"all at once, by the latency of every level on {' and '.join(f.host.eps)}, not by MACs",
        "a table of latencies of the place where it will run, and one integer programme over it, decide",
        "arXiv 2302.04089; docs/search.md",
    ),
)
