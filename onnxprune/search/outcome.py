"""What a search ends with."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.search.certify import Certificate
from onnxprune.search.finish import Finished


@dataclass(frozen=True)
class Outcome:
    """What the search ends with. `floor`: the lowest latency measured, as a ratio of the input model's, a value a
    target. `finished` is None where nothing was built, `certificate` where it was not worth one. `landing`: why the
    target is not used up, where it is not. `missed`: what was missed beside the latency. `bound`: the lowest 95 % bound
    of a latency as a share of its target, where candidates were measured in fresh processes and none was proved to fit.
    `front`: all models of a front, the slowest first.
    """

    met: bool
    finished: Finished | None
    certificate: Certificate | None
    floor: tuple[float, ...] | None
    baseline_s: tuple[float, ...]
    landing: str = ""
    missed: str = ""
    bound: float | None = None
    front: tuple[tuple[Finished, Certificate], ...] = ()
