"""The acceptance table as data: what is run on which zoo model, and what it must show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["compress", "prune"]

CIFAR, SENTENCES, OTHERS = 2000, 256, 256
LANDING = (0.90, 1.00)
LANDING_AIM = 0.97
GB = 1_000_000_000


@dataclass(frozen=True)
class Case:
    """One command and its bounds.

    name: of the row. model: folder in the zoo. target: of `--target-latency` or of `prune --macs`.
    samples: of calibration data, None for none (the zoo has none for that model).
    bound, aim: of the metric, in the zoo's own units (top-1 is a share); None where nothing is asked but a valid model.
    partner: the row of the same command on the other export, whose metric this one must come within `within` of.
    floor_allowed: exit 4 with the floor is an answer too. reference: shown for comparison, nothing is asked of it.
    seconds, memory: most wall time and bytes; the aims beside them are reported only.
    """

    name: str
    model: str
    kind: Kind
    target: str
    samples: int | None
    bound: float | None = None
    aim: float | None = None
    file: str = "model.onnx"
    options: tuple[str, ...] = ()
    partner: str | None = None
    within: float = 0.005
    floor_allowed: bool = False
    reference: bool = False
    seconds: float | None = None
    memory: int | None = None


def _dynamo(case: Case) -> Case:
    return replace(
        case,
        name=case.name.replace(case.model, f"{case.model}-dynamo"),
        file="model_dynamo.onnx",
        bound=None,
        aim=None,
        partner=case.name,
    )


RESNETS = (
    Case("resnet20-0.45x", "resnet20", "compress", "0.45x", CIFAR, 0.907, 0.912),
    Case("resnet56-0.40x", "resnet56", "compress", "0.40x", CIFAR, 0.922, 0.928, seconds=360, memory=3 * GB),
    Case("resnet56-0.33x", "resnet56", "compress", "0.33x", CIFAR, 0.913, 0.924, seconds=360, memory=3 * GB),
    Case("resnet56-macs-0.5x", "resnet56", "prune", "0.5x", CIFAR, 0.900, 0.915, memory=3 * GB),
    Case("resnet20-macs-0.75x", "resnet20", "prune", "0.75x", CIFAR, 0.895, 0.907),
    Case("resnet20-macs-0.5x", "resnet20", "prune", "0.5x", CIFAR, 0.83, 0.86),
)

_MAGNITUDE = Case(
    "resnet56-macs-0.5x-magnitude",
    "resnet56",
    "prune",
    "0.5x",
    CIFAR,
    options=("--criterion", "magnitude-l1", "--no-compensate"),
    reference=True,
)

FAMILIES = (
    Case(
        "minilm_l6-0.30x",
        "minilm_l6",
        "compress",
        "0.30x",
        SENTENCES,
        0.8103,
        0.815,
        options=("--input-shape", "input_ids:1,32"),
        memory=3 * GB,
    ),
    Case(
        "minilm_l6-0.24x",
        "minilm_l6",
        "compress",
        "0.24x",
        SENTENCES,
        aim=0.815,
        options=("--input-shape", "input_ids:1,32"),
        reference=True,
    ),
    Case("squeezenet11-0.45x", "squeezenet11", "compress", "0.45x", OTHERS, 0.585, 0.600),
    Case("espcn_superres-0.45x", "espcn_superres", "compress", "0.45x", OTHERS, 27.0, 27.6),
    Case("unet_sed-0.45x", "unet_sed", "compress", "0.45x", OTHERS, 0.96, 0.972),
    Case(
        "ultraface_rfb320-0.70x",
        "ultraface_rfb320",
        "compress",
        "0.70x",
        OTHERS,
        0.93,
        0.97,
        options=("--freeze-initializers",),  # an IR 4 file, whose 244 initializers could be overridden by callers
    ),
)

_OTHERS = {
    "ad01_toycar_ae": OTHERS,
    "fastestdet_coco": OTHERS,
    "kws_dscnn_tiny": OTHERS,
    "magika_v3_3": OTHERS,
    "mnist_cntk": OTHERS,
    "mobilenetv1_025_128": OTHERS,
    "ppocr_cls_v2": OTHERS,
    "resnet8_keras": CIFAR,
    "silero_vad": OTHERS,
    "sinet_portrait": OTHERS,
    "skl_mlp_digits": OTHERS,
}

EVERY_OTHER = (
    *(
        Case(f"{model}-0.8x", model, "compress", "0.8x", samples, floor_allowed=True)
        for model, samples in _OTHERS.items()
    ),
    *(
        Case(
            f"dtln_denoise-{part}-0.8x",
            "dtln_denoise",
            "compress",
            "0.8x",
            None,
            file=f"{part}.onnx",
            floor_allowed=True,
        )
        for part in ("model_1", "model_2")
    ),
)

CASES = (*RESNETS, *(_dynamo(case) for case in RESNETS), _MAGNITUDE, *FAMILIES, *EVERY_OTHER)


def chosen(only: str | None, rows: str | None) -> list[Case]:
    """The cases of a model, or of these names. SystemExit for a name that is none."""
    names = set(rows.split(",")) if rows else None
    unknown = sorted((names or set()) - {case.name for case in CASES})
    if unknown:
        raise SystemExit(f"no row {unknown[0]!r}; the rows are {', '.join(case.name for case in CASES)}")
    if only and only not in {case.model for case in CASES}:
        raise SystemExit(f"no row for model {only!r}; the models are {', '.join(sorted({c.model for c in CASES}))}")
    return [case for case in CASES if (not only or case.model == only) and (names is None or case.name in names)]
