"""Classifiers with the frame of a transformer and without its attention: ConvNeXt, MLP-Mixer, PoolFormer."""

from __future__ import annotations

import torch
from blocks import Classifier
from family import Family, images
from torch import nn
from torch.nn import functional as F  # noqa: N812


class ConvNeXtBlock(nn.Module):
    """arXiv 2201.03545: depthwise 7 x 7, LayerNorm over channels, a dense bottleneck, a scale per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(0.1 + torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    """LayerNorm over axis 1, written out as ConvNeXt does it for channels-first maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNeXt(nn.Module):
    """A patch stem, two stages with a normalised, strided convolution between them, and a normalised mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), ChannelNorm(8), ConvNeXtBlock(8), ChannelNorm(8), nn.Conv2d(8, 12, 2, 2),
            ConvNeXtBlock(12),
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(12, eps=1e-6), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.body(x).mean((-2, -1))))


class MixerBlock(nn.Module):
    """arXiv 2105.01601: a dense net over patches, then one over channels, each with a norm and a sum."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(patches, 12), nn.GELU(), nn.Linear(12, patches))
        self.channels = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """Patches by a convolution, two blocks, a norm, the mean over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.blocks, self.norm = nn.Sequential(MixerBlock(9, 12), MixerBlock(9, 12)), nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class PoolBlock(nn.Module):
    """arXiv 2111.11418: a pool minus its input in place of attention; GroupNorm with a single group; scales."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.up, self.down = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.scale1, self.scale2 = (nn.Parameter(0.1 + torch.rand(width, 1, 1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.scale1 * (self.pool(y) - y)
        return x + self.scale2 * self.down(F.gelu(self.up(self.norm2(x))))


def poolformer() -> nn.Module:
    """Patches, a block, an embedding into half the size, a block."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 7, 4, 2), PoolBlock(12), nn.Conv2d(12, 16, 3, 2, 1), PoolBlock(16), nn.GroupNorm(1, 16),
        Classifier(16),
    )  # fmt: skip


FAMILIES = (
    Family("ConvNeXt", ConvNeXt, images(2, 3, 32, 32), ("x",)),
    Family("MLP-Mixer", Mixer, images(2, 3, 12, 12), ("x",)),
    Family("PoolFormer", poolformer, images(2, 3, 32, 32), ("x",)),
)
