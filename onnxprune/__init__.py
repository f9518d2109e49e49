"""Compresses trained ONNX models to a measured latency target, without training.

Importing this package is cheap: the names below are loaded when they are first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onnxprune import errors

if TYPE_CHECKING:
    from onnxprune.api import analyze, benchmark, compress
    from onnxprune.canonical import canonicalize
    from onnxprune.ir import Model

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "analyze", "benchmark", "canonicalize", "compress", "errors"]

_HOMES = {
    "Model": "onnxprune.ir",
    "analyze": "onnxprune.api",
    "benchmark": "onnxprune.api",
    "canonicalize": "onnxprune.canonical",
    "compress": "onnxprune.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxprune' has no attribute {name!r}")
    from onnxprune import _siblings

    _siblings.check()
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
