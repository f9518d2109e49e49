"""The acceptance table as data: what is run on which zoo model, and what it must show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["compress", "prune"]

CIFAR, SENTENCES, OTHERS = 2000, 512, 256
LANDING = (0.90, 1.00)
LANDING_AIM = 0.97
GB = 1_000_000_000
SEEDS = 3


@dataclass(frozen=True)
class Case:
    """One command and its bounds.

    name: of the row. model: folder in the zoo. target: of `--target-latency` or of `prune --macs`.
    samples: of calibration data, None for none.
    loss, aim: what the metric may fall by at most, and what it should fall by at most, in the zoo's own units (top-1 is
    a share, so one point is 0.01); None where nothing is asked but a valid model.
    hoped: a target beyond the one that must be met. What it shows is said, and nothing depends on it.
    partner: the row of the same command on the other export, whose metric this one must come within `within` of.
    beside: the row whose model takes part in the evaluation, for models that only run together.
    floor_allowed: exit 4 with the floor is an answer too. reference: shown for comparison, nothing is asked of it.
    seeds: how many of the seeds that are asked for it runs with. seconds, memory: most wall time and bytes.
    """

    name: str
    model: str
    kind: Kind
    target: str
    samples: int | None
    loss: float | None = None
    aim: float | None = None
    file: str = "model.onnx"
    options: tuple[str, ...] = ()
    hoped: bool = False
    partner: str | None = None
    within: float = 0.005
    beside: str | None = None
    floor_allowed: bool = False
    reference: bool = False
    seeds: int = SEEDS
    seconds: float | None = None
    memory: int | None = None

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What the `--input-shape` options say."""
        pairs = zip(self.options, self.options[1:], strict=False)
        texts = [value.rpartition(":") for option, value in pairs if option == "--input-shape"]
        return {name: tuple(int(size) for size in sizes.split(",")) for name, _, sizes in texts}


def _at(target: str, model: str, loss: float, aim: float | None = None, *, samples: int = OTHERS, **more: Any) -> Case:
    """A row of the table that meets a latency."""
    return Case(f"{model}-{target}", model, "compress", target, samples, loss, aim, **more)


def _further(case: Case, target: str) -> Case:
    """The same row at the latency that is hoped for; one seed shows whether it is near."""
    return replace(case, name=case.name.replace(case.target, target), target=target, aim=None, hoped=True, seeds=1)


def _fast(case: Case) -> Case:
    """The same row with little effort, in a third of the time."""
    options = (*case.options, "--effort", "fast")
    seconds = None if case.seconds is None else case.seconds / 3
    return replace(case, name=f"{case.name}-fast", options=options, loss=None, aim=None, seconds=seconds, seeds=1)


def _dynamo(case: Case) -> Case:
    return replace(
        case,
        name=case.name.replace(case.model, f"{case.model}-dynamo"),
        file="model_dynamo.onnx",
        loss=None,
        aim=None,
        partner=case.name,
        seeds=1,
    )


def _macs(model: str, share: str, loss: float, aim: float) -> Case:
    options = ("--drop-branches",)
    return Case(f"{model}-macs-{share}", model, "prune", share, CIFAR, loss, aim, options=options, memory=3 * GB)


RESNETS = (
    _at("0.40x", "resnet20", 0.010, 0.005, samples=CIFAR),
    _at("0.33x", "resnet56", 0.012, 0.007, samples=CIFAR, seconds=240, memory=3 * GB),
    _at("0.25x", "resnet56", 0.030, 0.015, samples=CIFAR, seconds=240, memory=3 * GB),
    _macs("resnet56", "0.5x", 0.020, 0.012),
    _macs("resnet20", "0.75x", 0.012, 0.007),
    _macs("resnet20", "0.6x", 0.035, 0.025),
    _macs("resnet20", "0.5x", 0.065, 0.050),
)
_MAGNITUDE = Case(
    "resnet56-macs-0.5x-magnitude",
    "resnet56",
    "prune",
    "0.5x",
    CIFAR,
    options=("--criterion", "magnitude-l1", "--no-compensate"),
    reference=True,
    seeds=1,
)


def _minilm(target: str, tokens: int) -> Case:
    options = (
        *("--input-shape", f"input_ids:1,{tokens}"),
        *("--max-drift", "1"),  # the metric is the similarity of pooled vectors, which drift says little about
    )
    case = _at(target, "minilm_l6", 0.010, samples=SENTENCES, options=options, seconds=360, memory=3 * GB)
    return replace(case, name=f"minilm_l6-{tokens}-{target}")


SHORT, LONG = _minilm("0.22x", 32), _minilm("0.28x", 64)
SQUEEZENET = _at("0.38x", "squeezenet11", 0.015, seconds=360)
ESPCN = _at("0.40x", "espcn_superres", 0.35, 0.15)
UNET = _at("0.35x", "unet_sed", 0.006)
ULTRAFACE = _at(
    "0.50x",
    "ultraface_rfb320",
    0.04,
    0.02,
    options=("--freeze-initializers",),  # an IR 4 file, whose 244 initializers could be overridden by callers
)
FASTESTDET = _at("0.60x", "fastestdet_coco", 0.020)
MAGIKA = _at("0.50x", "magika_v3_3", 0.005)
MOBILENET = _at("0.75x", "mobilenetv1_025_128", 0.020)
RESNET8 = _at("0.60x", "resnet8_keras", 0.010, samples=CIFAR)
PPOCR = _at("0.70x", "ppocr_cls_v2", 0.010)
SILERO = _at("0.85x", "silero_vad", 0.003)
DTLN = tuple(
    replace(_at("0.85x", "dtln_denoise", 0.3), name=f"dtln_denoise-{part}-0.85x", file=f"{part}.onnx", beside=beside)
    for part, beside in (("model_1", None), ("model_2", "dtln_denoise-model_1-0.85x"))
)

FAMILIES = (
    SHORT,
    LONG,
    SQUEEZENET,
    ESPCN,
    UNET,
    ULTRAFACE,
    FASTESTDET,
    MAGIKA,
    MOBILENET,
    RESNET8,
    PPOCR,
    SILERO,
    *DTLN,
)

HOPED = tuple(
    _further(case, target)
    for case, target in (
        (SHORT, "0.15x"),
        (LONG, "0.20x"),
        (SQUEEZENET, "0.30x"),
        (UNET, "0.25x"),
        (FASTESTDET, "0.45x"),
        (MAGIKA, "0.35x"),
        (MOBILENET, "0.6x"),
        (RESNET8, "0.5x"),
        (PPOCR, "0.5x"),
        (SILERO, "0.7x"),
        *((case, "0.7x") for case in DTLN),
    )
)

FAST = tuple(_fast(case) for case in (RESNETS[1], SHORT, SQUEEZENET))

EVERY_OTHER = tuple(
    Case(f"{model}-0.8x", model, "compress", "0.8x", OTHERS, floor_allowed=True, seeds=1)
    for model in ("ad01_toycar_ae", "kws_dscnn_tiny", "mnist_cntk", "sinet_portrait", "skl_mlp_digits")
)

EXPORTS = tuple(_dynamo(case) for case in (RESNETS[0], RESNETS[3], RESNETS[4]))

CASES = (*RESNETS, _MAGNITUDE, *FAMILIES, *FAST, *HOPED, *EXPORTS, *EVERY_OTHER)


def row_id(case: Case, seed: int) -> str:
    """Under which a run of a case is kept."""
    return f"{case.name}@{seed}"


def chosen(only: str | None, rows: str | None) -> list[Case]:
    """The cases of a model, or of these names. SystemExit for a name that is none."""
    names = set(rows.split(",")) if rows else None
    unknown = sorted((names or set()) - {case.name for case in CASES})
    if unknown:
        raise SystemExit(f"no row {unknown[0]!r}; the rows are {', '.join(case.name for case in CASES)}")
    if only and only not in {case.model for case in CASES}:
        raise SystemExit(f"no row for model {only!r}; the models are {', '.join(sorted({c.model for c in CASES}))}")
    return [case for case in CASES if (not only or case.model == only) and (names is None or case.name in names)]
