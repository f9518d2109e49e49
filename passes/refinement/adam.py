"""Adam with steps relative to the size of each weight, so that one rate suits every layer of every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxprune.stats.arrays import Array
from passes.refinement.whitening import Basis

_FIRST, _SECOND = 0.9, 0.99  # decays of the mean and of the mean square of gradients


@dataclass
class Adam:
    """Kingma and Ba 2014 (arXiv 1412.6980, algorithm 1), in the coordinates of ``bases`` where a weight has some; a
    step is ``rate`` times the root mean square that the coordinates started with.
    """

    sizes: Mapping[str, float]
    bases: Mapping[str, Basis]
    count: int = 0
    _mean: dict[str, Array] = field(default_factory=dict)
    _square: dict[str, Array] = field(default_factory=dict)

    @staticmethod
    def of(weights: Mapping[str, Array], bases: Mapping[str, Basis]) -> Adam:
        sizes = {
            name: bases[name].size(values) if name in bases else float(np.sqrt(np.square(values).mean()))
            for name, values in weights.items()
        }
        return Adam(sizes, bases)

    def afresh(self) -> Adam:
        """The same without what it has seen of gradients."""
        return Adam(self.sizes, self.bases)

    def step(self, weights: dict[str, Array], slopes: Mapping[str, Array], rate: float) -> None:
        """Moves the weights against their gradients; float32, new arrays in place of the old ones."""
        self.count += 1
        for name, slope in slopes.items():
            basis = self.bases.get(name)
            slope = slope if basis is None else basis(slope)
            mean = self._mean.get(name, np.zeros_like(slope))
            square = self._square.get(name, np.zeros_like(slope))
            mean = self._mean[name] = _FIRST * mean + (1 - _FIRST) * slope
            square = self._square[name] = _SECOND * square + (1 - _SECOND) * slope * slope
            ahead = mean / (1 - _FIRST**self.count)
            spread = np.sqrt(square / (1 - _SECOND**self.count)) + 1e-12
            move = rate * self.sizes[name] * ahead / spread
            move = move if basis is None else basis(move)
            weights[name] = (weights[name] - move).astype(np.float32)
