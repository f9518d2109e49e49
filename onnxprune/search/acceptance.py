"""What decides about a finished model: the user's evaluation where there is one, else the drift of the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from onnxprune import ir
from onnxprune.search.depth import squared
from onnxprune.search.finish import Finished


@dataclass
class Acceptance:
    """Limits of loss, and what the loss is. `evaluate`: the user's metric of a model, higher is better; `before`: the
    input model's. `max_drop`: of that metric, `max_drift`: relative output error on held-out samples; None: no limit.
    """

    max_drift: float | None = None
    max_drop: float | None = None
    evaluate: Callable[[ir.Model], float] | None = None
    before: float = math.nan
    _known: list[tuple[ir.Model, float]] = field(default_factory=list)

    def metric(self, done: Finished) -> float | None:
        """The user's metric of a finished model, evaluated once; None where there is no evaluation."""
        if self.evaluate is None:
            return None
        for model, value in self._known:
            if model is done.compressed:
                return value
        value = self.evaluate(done.compressed)
        self._known.append((done.compressed, value))
        return value

    def loss(self, done: Finished) -> float:
        """What is compared between finished models, lower is better: the drop of the metric, or else the squared
        relative output error.
        """
        metric = self.metric(done)
        return squared(done.drift) if metric is None else self.before - metric

    def passes(self, done: Finished) -> bool:
        """Whether a finished model keeps within every limit. A drift that is not a number does not."""
        return self.refusal(done) is None

    def refusal(self, done: Finished) -> str | None:
        """Why a finished model may not be had, in words."""
        metric = None if self.max_drop is None else self.metric(done)
        if metric is not None and not self.before - metric <= (self.max_drop or 0.0):
            return f"the metric falls from {self.before:.4g} to {metric:.4g}, more than --max-drop {self.max_drop:g}"
        if self.max_drift is not None and not done.worst_drift <= self.max_drift:
            return f"the outputs drift by {done.worst_drift:.3f}, more than {self.max_drift:g}"
        return None
