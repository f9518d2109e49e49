"""From what the search found to the data classes of the report."""

from __future__ import annotations

import hashlib
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxprune import ir
from onnxprune.channels import ChannelGraph
from onnxprune.pipeline import PassRecord
from onnxprune.report import GroupFacts, LatencyFacts, ModelFacts, PassFacts, RemovedSlices, SpeedupFacts
from runtime_bench import Arm


def model_facts(model: ir.Model, path: Path, inputs: Mapping[str, tuple[int, ...]], shown: str | None) -> ModelFacts:
    """Size facts of a model file; MACs at these input shapes."""
    digest = hashlib.sha256()
    total = 0
    for part in [path, *sorted(path.parent.glob(f"{path.name}.*.data"))]:
        with part.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                total += len(chunk)
    macs = ir.macs(model, ir.shapes_for(model, inputs))
    return ModelFacts(shown, digest.hexdigest(), len(model.graph.nodes), ir.parameters(model), macs, total)


def latency_facts(arm: Arm) -> LatencyFacts:
    """One measured arm of a comparison."""
    timing = arm.timing
    raw = tuple(float(f"{value:.9f}") for value in timing.raw)
    return LatencyFacts(timing.p50_ms, timing.p90_ms, timing.p99_ms, timing.p50_upper95_ms, len(raw), raw)


def speedup_facts(arm: Arm) -> SpeedupFacts:
    """The speedup of an arm over the baseline."""
    found = arm.speedup
    assert found is not None
    return SpeedupFacts(found.ratio, found.lower95, found.upper95, found.verdict)


def group_facts(graph: ChannelGraph, keep: Mapping[str, np.ndarray]) -> tuple[GroupFacts, ...]:
    """Every group with what left it."""
    facts = []
    for group in graph.groups:
        mask = keep.get(group.name)
        width = group.width if mask is None else int(np.count_nonzero(mask))
        slices = graph.removals({group.name: mask}) if mask is not None and width < group.width else {}
        removed = tuple(
            RemovedSlices(tensor, axis, tuple(int(i) for i in indices)) for (tensor, axis), indices in slices.items()
        )
        facts.append(GroupFacts(group.name, group.kind, group.width, width, removed))
    return tuple(facts)


def pass_facts(records: tuple[PassRecord, ...]) -> list[PassFacts]:
    """The passes of a pipeline."""
    return [
        PassFacts(r.name, r.modified, round(r.seconds, 4), r.kept, tuple(f"{s.node}: {s.reason}" for s in r.skips))
        for r in records
    ]


def peak_memory() -> int:
    """Largest resident set so far in bytes: of this process, or of its largest child."""
    scale = 1 if sys.platform == "darwin" else 1024
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(int(resource.getrusage(who).ru_maxrss) * scale for who in both)
