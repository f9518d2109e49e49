"""Calibration input, streaming execution, and the statistics that compression needs from activations."""

from onnxprune.stats.drift import drift, model_drift, padding
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.moments import Moments, Statistics, collect
from onnxprune.stats.product import Product, products
from onnxprune.stats.reference import Reference
from onnxprune.stats.runner import Runner, run
from onnxprune.stats.trimming import trimmed

__all__ = [
    "Feeds",
    "Moments",
    "Product",
    "Reference",
    "Runner",
    "Statistics",
    "collect",
    "drift",
    "model_drift",
    "padding",
    "products",
    "run",
    "trimmed",
]
