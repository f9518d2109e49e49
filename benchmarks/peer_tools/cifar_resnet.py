"""The CIFAR residual networks of the zoo in PyTorch, with their weights: shortcuts that narrow the picture take every
other pixel and pad channels with zeros (option A of arXiv 1512.03385, section 4.2).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut around them."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.added = width - before
        self.conv1 = nn.Conv2d(before, width, 3, stride=2 if self.added else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.added:
            half = self.added // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return torch.relu(x + y)


class Network(nn.Module):
    """`blocks` blocks of each width."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        before = (WIDTHS[0], *WIDTHS)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(before[i], WIDTHS[i]), *(Block(WIDTHS[i], WIDTHS[i]) for _ in range(blocks - 1)))
            for i in range(len(WIDTHS))
        )
        self.linear = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def load(path: Path) -> Network:
    """The network of an ONNX file whose initializers have the names of PyTorch. RuntimeError where they do not fit."""
    weights = {t.name: torch.from_numpy(np.array(numpy_helper.to_array(t))) for t in onnx.load(path).graph.initializer}
    blocks = sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in weights)
    network = Network(blocks)
    wanted = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    network.load_state_dict({name: value for name, value in weights.items() if name in wanted}, strict=False)
    if not wanted <= set(weights):
        raise RuntimeError(f"no weights named {sorted(wanted - set(weights))[:3]}")
    return network.eval()
