"""Which precisions are worth a search: valid, measured faster as they stand, and with a known cost in the outputs."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import OnnxpruneError
from onnxprune.search.depth import squared
from onnxprune.search.pricing import scheme_name
from onnxprune.search.workspace import Workspace
from onnxprune.stats import model_drift
from passes.quantization import Scheme, fake_quantize_for_latency, quantize

WORTH = 0.97  # a scheme must take at most this share of the float model's latency
CALIBRATION_SAMPLES = 96
EXCLUDED = (1, 2, 4, 8)
TOLERABLE = 2e-3  # squared drift of quantization alone below which no node needs to stay in float


@dataclass(frozen=True)
class SchemeOption:
    """A scheme, the squared drift that it alone costs, and its latency over the input model's at full width (worst
    target).
    """

    scheme: Scheme | None
    error: float
    ratio: float


def scheme_options(work: Workspace) -> list[SchemeOption]:
    """Float, and every quantized scheme that is worth it; static ones also with their worst nodes left in float."""
    plain = SchemeOption(None, 0.0, max(work.ratios(work.base_file)))
    if "int8" not in work.options.precisions:
        return [plain]
    candidates = [
        Scheme(kind="static", activation="u8"),
        Scheme(kind="static", activation="s8"),
        Scheme(kind="dynamic"),
    ]
    measured = [pair for scheme in candidates if (pair := _measured(work, scheme, plain.ratio)) is not None]
    static = min((pair for pair in measured if pair[0].kind == "static"), key=lambda pair: pair[1], default=None)
    options = [plain] if "fp32" in work.options.precisions else []
    for pair in measured:
        if pair[0].kind == "dynamic" or pair is static:
            options.extend(_with_errors(work, *pair))
    for option in options[1:]:
        work.progress.decide(
            f"{scheme_name(option.scheme)}: {option.ratio:.3f}x at full width, squared drift {option.error:.3g}"
        )
    return options or [plain]


def _measured(work: Workspace, scheme: Scheme, plain: float) -> tuple[Scheme, float] | None:
    """The latency ratio of a scheme at full width; None where it is invalid or no faster than float."""
    work.progress.stage("choosing precision", scheme_name(scheme))
    try:
        model = fake_quantize_for_latency(work.base, scheme, work.probe_feeds().take(range(2)))
        ratio = max(work.ratios(work.file(model, "scheme")))
    except OnnxpruneError as error:
        work.progress.decide(f"{scheme_name(scheme)} is not possible: {error}")
        return None
    if ratio > WORTH * plain:
        work.progress.decide(f"{scheme_name(scheme)} is not faster: {ratio:.3f}x at full width, float {plain:.3f}x")
        return None
    return scheme, ratio


def _with_errors(work: Workspace, scheme: Scheme, ratio: float) -> list[SchemeOption]:
    feeds = work.feeds.take(range(min(len(work.feeds), CALIBRATION_SAMPLES)))
    held = work.held.take(range(min(len(work.held), CALIBRATION_SAMPLES)))
    quantized = quantize(work.base, feeds, scheme)
    found = [SchemeOption(scheme, squared(model_drift(work.base, quantized, held)), ratio)]
    if scheme.kind != "static" or found[0].error < TOLERABLE:
        return found
    return found
