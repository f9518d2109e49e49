"""The plan in words, as plain data: what the model is, what will be tried, what it costs, what cannot be had, what
would help. docs/advise.md has the schema.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.advice.costs import Estimate, estimates
from onnxprune.advice.facts import Facts
from onnxprune.advice.gather import Request, gather
from onnxprune.advice.rules import Rule, holding, met_already
from onnxprune.progress import Progress, SilentProgress
from onnxprune.search.effort import EFFORTS, NORMAL

SCHEMA_VERSION = 1


def advise(model: str | Path, *, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    """Advice on one model file. options: the fields of `gather.Request`, named like the options of the command line.

    Raises ModelError, DataError, UsageError or ProviderError, as a compression with these options would.
    """
    return plan(gather(Request(Path(model), **options), progress or SilentProgress()))


def plan(facts: Facts) -> dict[str, Any]:
    """The advice that follows from the evidence."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": _model(facts),
        "host": _host(facts),
        "data": {"given": facts.data.given, "samples": facts.data.samples},
        "target": {"text": facts.target_text, "ratio": _rounded(facts.target), "met_already": met_already(facts)},
        "tried": [_row(rule, facts) for rule in holding(facts, "try")],
        "cost": _cost({name: estimates(facts, row) for name, row in EFFORTS.items()}),
        "cannot": [_row(rule, facts) for rule in holding(facts, "cannot")],
        "help": [_row(rule, facts) for rule in holding(facts, "help")],
    }


def _model(facts: Facts) -> dict[str, Any]:
    graph, pruning = facts.graph, facts.pruning
    return {
        "family": graph.family,
        "nodes": graph.nodes,
        "opset": graph.opset,
        "params": graph.params,
        "macs": graph.macs,
        "macs_by_operator": {name: round(share, 4) for name, share in graph.ops.items() if share},
        "float_type": graph.float_type,
        "quantized": graph.quantized,
        "int8": {"static": round(graph.int8, 4), "dynamic": round(graph.dynamic, 4)},
        "macs_a_byte": {"median": round(graph.intensity, 3), "memory_bound": round(graph.loose, 4)},
        "weight_bound": graph.heavy,
        "overridable": graph.overridable,
        "input_shapes": {name: list(shape) for name, shape in graph.inputs.items()},
        "groups": [
            {"kind": kind.name, "groups": kind.groups, "units": kind.units, "widest": kind.widest}
            for kind in pruning.kinds
        ],
        "groups_in_subgraphs": pruning.hidden,
        "branches": {"count": pruning.branches, "macs": round(pruning.branch_macs, 4)},
        "prunable": {"macs": round(pruning.prunable.macs, 4), "params": round(pruning.prunable.params, 4)},
        "floor": round(pruning.floor, 4),
        "latency_ms": _rounded(facts.latency.seconds * 1e3),
        "lossless": _rounded(facts.latency.lossless),
    }


def _host(facts: Facts) -> dict[str, Any]:
    host = facts.host
    return {
        "cpu": host.cpu,
        "cores": host.cores,
        "memory_gib": host.memory_gib,
        "instructions": list(host.instructions),
        "fast_int8": host.fast_int8,
        "ep": list(host.eps),
        "available_ep": list(host.available),
        "threads": host.threads,
    }


def _row(rule: Rule, facts: Facts) -> dict[str, str]:
    return {
        "rule": rule.name,
        "says": rule.says(facts),
        "because": rule.because,
        "source": rule.source,
        "gives": rule.gives,
    }


def _cost(found: Mapping[str, Sequence[Estimate]]) -> dict[str, Any]:
    """Seconds as ranges: of every stage at normal effort, and in all at each effort."""
    return {
        "stages": [{"stage": e.stage, "seconds": [round(e.low, 1), round(e.high, 1)]} for e in found[NORMAL.name]],
        "seconds": {
            name: [round(sum(e.low for e in stages), 1), round(sum(e.high for e in stages), 1)]
            for name, stages in found.items()
        },
    }


def _rounded(value: float | None) -> float | None:
    """Four significant digits."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def describe(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The advice that a request of plain JSON data asks for."""
    options = {**request["options"], "eps": tuple(request["options"]["eps"])}
    return advise(request["model"], progress=progress, **options)
