"""Which precisions are worth a search: valid, measured faster as they stand, and with a known cost in the outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.errors import OnnxpruneError
from onnxprune.search.depth import squared
from onnxprune.search.pricing import scheme_name
from onnxprune.search.workspace import Workspace
from onnxprune.stats import Feeds, model_drift
from passes.quantization import (
    Scheme,
    fake_quantize_for_latency,
    float_prefixes,
    is_quantized,
    quantize,
    ranking,
    reads_weights_most,
    sensitivity,
)

WORTH = 0.9  # a scheme must take at most this share of the float model's latency: less saves nothing worth its search
CALIBRATION_SAMPLES = 96
EXCLUDED = (1, 2, 4, 8)
VARIANT = 0.97  # a variant with nodes in float must take at most this share of the scheme's latency
PATIENCE = 2  # variants in a row that gain nothing before the others are not tried
ROUGH: dict[str, Any] = {"refine": False, "calibration": "minmax"}  # what a scheme costs, before its care
TOLERABLE = 2e-3  # squared drift of quantization alone below which no node needs to stay in float

Measured = tuple[Scheme, float]
"""A scheme and its latency over the input model's at full width (worst target)."""


@dataclass(frozen=True)
class SchemeOption:
    """A scheme, the squared drift that it alone costs, and its latency over the input model's at full width (worst
    target).
    """

    scheme: Scheme | None
    error: float
    ratio: float


def scheme_options(work: Workspace) -> list[SchemeOption]:
    """Float, and every quantized scheme that is worth it; static ones also with nodes left in float that
    8 bits make slower or wrong.
    """
    plain = SchemeOption(None, 0.0, max(work.ratios(work.base_file)))
    if is_quantized(work.base) or not work.options.uses("quantization"):
        return [plain]
    found = _valid(work, Scheme(kind="float16")) if "fp16" in work.options.precisions else []
    found += _eight_bits(work) if "int8" in work.options.precisions else []
    limit = _limit(work, plain.ratio)
    options = [SchemeOption(scheme, _error(work, scheme), ratio) for scheme, ratio in found if ratio <= limit]
    options = _front([*options, *_exact_where_it_hurts(work, options, limit)])
    for option in options:
        work.progress.decide(
            f"{scheme_name(option.scheme)}: {option.ratio:.3f}x at full width, squared drift {option.error:.3g}"
        )
    return [plain, *options] if "fp32" in work.options.precisions or not options else options


def _eight_bits(work: Workspace) -> list[Measured]:
    """The schemes of 8 bits and fewer that are valid: products, and of the static ones the faster, also with nodes in
    float.
    """
    plainest = Scheme(reduce_range=work.seven_bits)
    products = [replace(plainest, kind="dynamic")]
    products += [replace(plainest, kind="weight-only")] if reads_weights_most(work.base) else []
    static = _valid(work, replace(plainest, activation="u8"), replace(plainest, activation="s8"))
    found = _valid(work, *products)
    if static:
        best = min(static, key=lambda pair: pair[1])
        found += [best, *_excluding(work, best[0], float_prefixes(work.base), best[1])]
    return found


def _valid(work: Workspace, *schemes: Scheme) -> list[Measured]:
    """Those that can be had, measured in this order."""
    return [pair for scheme in schemes if (pair := _measured(work, scheme)) is not None]


def _measured(work: Workspace, scheme: Scheme) -> Measured | None:
    """A scheme and its latency ratio at full width; None where it is invalid."""
    work.progress.stage("choosing precision", scheme_name(scheme))
    try:
        model = fake_quantize_for_latency(work.base, scheme, work.probe_feeds().spread(2))
        ratio = max(work.ratios(work.file(model, "scheme")))
    except OnnxpruneError as error:
        work.progress.decide(f"{scheme_name(scheme)} is not possible: {error}")
        return None
    return scheme, ratio


def _excluding(work: Workspace, scheme: Scheme, choices: Sequence[tuple[str, ...]], ratio: float) -> list[Measured]:
    """The fastest of a scheme's variants with these nodes in float, where it is faster than the scheme as it stands."""
    best: list[Measured] = []
    patience = PATIENCE
    for exclude in choices:
        pair = _measured(work, replace(scheme, exclude=exclude))
        if pair is not None and pair[1] < VARIANT * (best[0][1] if best else ratio):
            best, patience = [pair], PATIENCE
        elif (patience := patience - 1) == 0:
            break
    return best


def _exact_where_it_hurts(work: Workspace, options: Sequence[SchemeOption], limit: float) -> list[SchemeOption]:
    """Variants of the static scheme whose most harmful nodes stay in float, where quantization alone costs too much."""
    static = [o for o in options if o.scheme is not None and o.scheme.kind == "static" and o.error > TOLERABLE]
    if not static:
        return []
    scheme = min(static, key=lambda option: option.error).scheme
    assert scheme is not None
    rough = replace(scheme, **ROUGH)
    feeds, _ = _samples(work)
    order = ranking(sensitivity(work.base, quantize(work.base, feeds, rough), feeds))
    found = []
    for count in EXCLUDED:
        exclude = tuple(dict.fromkeys((*scheme.exclude, *order[:count])))
        pair = _measured(work, replace(scheme, exclude=exclude)) if count <= len(order) // 2 else None
        if pair is None or pair[1] > limit:
            break
        found.append(SchemeOption(pair[0], _error(work, pair[0]), pair[1]))
    return found


def _limit(work: Workspace, plain: float) -> float:
    """The latency ratio that a scheme may take at full width. Where bytes are limited any may be worth it: the
    programme narrows it until its latency fits.
    """
    return math.inf if work.options.size is not None else WORTH * plain


def _samples(work: Workspace) -> tuple[Feeds, Feeds]:
    return work.feeds.spread(CALIBRATION_SAMPLES), work.held.spread(CALIBRATION_SAMPLES)


def _error(work: Workspace, scheme: Scheme) -> float:
    """The squared drift of the base model in a scheme, unrefined, in plain ranges: a little too high for all alike."""
    feeds, held = _samples(work)
    quantized = quantize(work.base, feeds, replace(scheme, **ROUGH))
    return squared(model_drift(work.base, quantized, held))


def _front(options: Sequence[SchemeOption]) -> list[SchemeOption]:
    """Options that no other one beats in both latency and error: at most four, both ends included. What overflows is
    none.
    """
    options = [option for option in options if math.isfinite(option.error)]
    kept = [o for o in options if not any(p.ratio < o.ratio and p.error < o.error for p in options)]
    kept.sort(key=lambda option: option.ratio)
    picks: Sequence[int] = (
        np.unique(np.linspace(0, len(kept) - 1, min(len(kept), 4)).round().astype(int)).tolist() if kept else []
    )
    return [kept[i] for i in picks]
