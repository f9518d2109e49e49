"""What a user would pick instead, as data: tools, their settings, and the models that each is run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cases import FAMILIES, RESNETS, Case

OURS = "onnxprune"
TARGETS = ("0.9x", "0.75x", "0.6x", "0.45x", "0.33x", "0.25x", "0.18x")
CALIBRATION_SAMPLES = 200

CIFAR_NETS = frozenset({"resnet20", "resnet56"})
TRANSFORMERS = frozenset({"minilm_l6"})
SKIPPED = frozenset({"dtln_denoise"})  # two models that only run together: a tool would have to be run on both

POINT = 0.01
POINTS = {"espcn_superres": 0.35, "unet_sed": 0.006}
"""What one point of loss is, where the metric is no share and no correlation of ranks: as the acceptance table asks."""

SPARSITIES = (0.05, 0.15)
"""Without fine-tuning, what only removes channels loses ten points soon after."""


@dataclass(frozen=True)
class Variant:
    """One setting of one tool. script: in peer_tools. models: it is run on, None for all."""

    tool: str
    label: str
    script: str
    settings: Mapping[str, Any]
    models: frozenset[str] | None = None


def _onnxsim() -> Iterator[Variant]:
    whose = {"none": "onnxsim pruning", "onnxsim": "onnxsim pruning + int8", "ort": "onnxsim pruning + int8"}
    for int8, tool in whose.items():
        for share in SPARSITIES:
            label = f"{share:.0%} of the channels" + ("" if int8 == "none" else f", int8 of {int8}")
            settings = {"sparsity": share, "criterion": "wanda", "int8": int8}
            yield Variant(tool, label, "prune_with_onnxsim.py", settings)


def _torch_pruning() -> Iterator[Variant]:
    for criterion, everywhere in (("group L2", False), ("BN scale", True)):
        for share in SPARSITIES:
            for int8 in (False, True):
                ranking = "one ranking" if everywhere else "each layer"
                label = f"{criterion}, {ranking}, {share:.0%}" + (", int8 of ort" if int8 else "")
                settings = {"criterion": criterion, "global_pruning": everywhere, "ratio": share, "int8": int8}
                tool = "Torch-Pruning + int8" if int8 else "Torch-Pruning"
                yield Variant(tool, label, "prune_with_torch_pruning.py", settings, CIFAR_NETS)


VARIANTS = (
    Variant("ORT static int8", "u8s8", "quantize_with_ort.py", {"mode": "static"}),
    Variant("ORT static int8", "u8s8, 7 bits", "quantize_with_ort.py", {"mode": "static", "reduce_range": True}),
    Variant("ORT dynamic int8", "u8s8", "quantize_with_ort.py", {"mode": "dynamic"}),
    Variant("ORT dynamic int8", "u8s8, 7 bits", "quantize_with_ort.py", {"mode": "dynamic", "reduce_range": True}),
    *_onnxsim(),
    Variant("NNCF int8", "mixed", "quantize_with_nncf.py", {"preset": "mixed"}),
    Variant("NNCF int8", "performance", "quantize_with_nncf.py", {"preset": "performance"}),
    *_torch_pruning(),
)
TOOLS = tuple(dict.fromkeys(variant.tool for variant in VARIANTS))


def starts() -> dict[str, Case]:
    """One case of every model that tools are compared on: it knows the file, the options and the data."""
    found: dict[str, Case] = {}
    for case in (*RESNETS, *FAMILIES):
        if case.kind == "compress" and case.model not in SKIPPED:
            found.setdefault(case.model, case)
    return found


def variants(model: str) -> list[Variant]:
    """What is run on a model; transformers are said to be some, where a tool wants to know it."""
    mine = [variant for variant in VARIANTS if variant.models is None or model in variant.models]
    if model not in TRANSFORMERS:
        return mine
    return [replace(variant, settings={**variant.settings, "transformer": True}) for variant in mine]


def point(model: str) -> float:
    """One point of the metric of a model."""
    return POINTS.get(model, POINT)
