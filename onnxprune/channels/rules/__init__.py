"""The rules, one module a family. A module registers its rules when it is imported; this list is the only one."""

from onnxprune.channels.rules import (
    convolution,
    elementwise,
    integer,
    joining,
    normalization,
    pooling,
    product,
    qlinear,
    quantization,
    recurrence,
    reduction,
    repetition,
    resampling,
    reshaping,
    selection,
)

__all__ = [
    "convolution",
    "elementwise",
    "integer",
    "joining",
    "normalization",
    "pooling",
    "product",
    "qlinear",
    "quantization",
    "recurrence",
    "reduction",
    "repetition",
    "resampling",
    "reshaping",
    "selection",
]
