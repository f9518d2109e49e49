"""Layers that many families share: a normalised convolution and the squeeze and excitation gate."""

from __future__ import annotations

import torch
from torch import nn


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
    dilation: int = 1,
) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), BatchNorm, activation."""
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, act()) if act else nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """arXiv 1709.01507: the mean of each channel, through a bottleneck, gates the channel."""

    def __init__(
        self, width: int, middle: int, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, middle, 1), nn.Conv2d(middle, width, 1)
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act(), gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.excite(self.act(self.squeeze(self.pool(x)))))


class Classifier(nn.Module):
    """The mean of each channel and a dense layer."""

    def __init__(self, width: int, classes: int = 5) -> None:
        super().__init__()
        self.dense = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x.mean((2, 3)))
