"""Advice before a run: what would be tried on a model and why, what it would cost in time, and what cannot be had.

    from onnxprune.advice import advise
    advise("model.onnx", calib_data="inputs.npz", target_latency="0.4x")

Evidence is gathered once (`gather`), a table of rules speaks about it (`rules`), `costs` adds times, and `plan` makes
plain data of it. See docs/advise.md.
"""

from onnxprune.advice.plan import advise, describe, plan

__all__ = ["advise", "describe", "plan"]
