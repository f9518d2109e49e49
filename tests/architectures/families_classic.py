"""Plain convolutional classifiers: VGG."""

from __future__ import annotations

import torch
from family import Family, images
from torch import nn


class VGG(nn.Module):
    """arXiv 1409.1556 with BatchNorm: convolutions of 3 x 3, pools, and dense layers behind a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for out in (8, 16):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
            width = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(16 * 4 * 4, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


FAMILIES = (Family("VGG", VGG, images(2, 3, 16, 16), ("x",)),)
