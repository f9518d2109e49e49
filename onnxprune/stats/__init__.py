"""Calibration input, streaming execution, and the statistics that compression needs from activations."""

from onnxprune.stats.drift import drift, model_drift, padding
from onnxprune.stats.feeds import Feeds
from onnxprune.stats.runner import Runner, run

__all__ = ["Feeds", "Runner", "drift", "model_drift", "padding", "run"]
