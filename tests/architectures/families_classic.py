"""Plain and multi-branch convolutional classifiers: AlexNet, VGG, GoogLeNet, Inception, SqueezeNet."""

from __future__ import annotations

import torch
from blocks import Classifier, conv_bn
from family import Family, images
from torch import nn


class AlexNet(nn.Module):
    """Krizhevsky et al., 2012: local response normalisation, overlapping pools, a grouped convolution, dense layers.

    LRN reads neighbouring channels, so the channels it sees stay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 1, 2), nn.ReLU(), nn.LocalResponseNorm(5, k=2.0), nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 16, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(16 * 9, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


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


class Branches(nn.Module):
    """Branches side by side on one input, concatenated over channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def pooled(inputs: int, outputs: int, pool: nn.Module) -> nn.Sequential:
    """The branch that pools and then projects."""
    return nn.Sequential(pool, conv_bn(inputs, outputs, 1))


class GoogLeNet(nn.Module):
    """arXiv 1409.4842: modules of 1 x 1, 3 x 3, 5 x 5 and a projected pool, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8), nn.MaxPool2d(3, 2, ceil_mode=True))
        self.a = self._module(8, 6, 4, 8, 2, 4, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.b = self._module(22, 8, 6, 12, 3, 6, 6)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 5))

    @staticmethod
    def _module(inputs: int, one: int, three_in: int, three: int, five_in: int, five: int, pool: int) -> nn.Module:
        return Branches(
            conv_bn(inputs, one, 1),
            nn.Sequential(conv_bn(inputs, three_in, 1), conv_bn(three_in, three)),
            nn.Sequential(conv_bn(inputs, five_in, 1), conv_bn(five_in, five, 5)),
            pooled(inputs, pool, nn.MaxPool2d(3, 1, 1, ceil_mode=True)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.pool(self.a(self.stem(x)))))


class Factorised(nn.Sequential):
    """n x n as 1 x n and n x 1, each normalised."""

    def __init__(self, inputs: int, middle: int, outputs: int, kernel: int) -> None:
        half = kernel // 2
        super().__init__(
            nn.Conv2d(inputs, middle, (1, kernel), padding=(0, half), bias=False),
            nn.BatchNorm2d(middle, 1e-3), nn.ReLU(),
            nn.Conv2d(middle, outputs, (kernel, 1), padding=(half, 0), bias=False),
            nn.BatchNorm2d(outputs, 1e-3), nn.ReLU(),
        )  # fmt: skip


class InceptionV3(nn.Module):
    """arXiv 1512.00567: factorised kernels, average-pool branches, a reduction, and an expanded, forked last module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8), nn.MaxPool2d(2))
        self.a = Branches(
            conv_bn(8, 6, 1),
            nn.Sequential(conv_bn(8, 4, 1), conv_bn(4, 6, 5)),
            nn.Sequential(conv_bn(8, 4, 1), conv_bn(4, 6), conv_bn(6, 6)),
            pooled(8, 4, nn.AvgPool2d(3, 1, 1)),
        )
        self.reduce = Branches(
            nn.Conv2d(22, 10, 3, 2), nn.Sequential(conv_bn(22, 6, 1), nn.Conv2d(6, 8, 3, 2)), nn.MaxPool2d(3, 2)
        )
        self.b = Branches(
            conv_bn(40, 8, 1),
            nn.Sequential(conv_bn(40, 6, 1), Factorised(6, 6, 8, 7)),
            pooled(40, 8, nn.AvgPool2d(3, 1, 1)),
        )
        self.fork = conv_bn(24, 8, 1)
        self.wide, self.tall = nn.Conv2d(8, 6, (1, 3), padding=(0, 1)), nn.Conv2d(8, 6, (3, 1), padding=(1, 0))
        self.head = Classifier(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fork(self.b(self.reduce(self.a(self.stem(x)))))
        return self.head(torch.cat([self.wide(y), self.tall(y)], 1).relu())


class Fire(nn.Module):
    """arXiv 1602.07360: a squeezing 1 x 1, and two expansions whose outputs are concatenated."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.one(x).relu(), self.three(x).relu()], 1)


class SqueezeNet(nn.Module):
    """Fire modules with a bypass, and a convolution as the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        self.a, self.b = Fire(16, 4, 8), Fire(16, 6, 12)
        self.head = nn.Sequential(nn.Dropout(), nn.Conv2d(24, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.b(x + self.a(x)))


FAMILIES = (
    Family(
        "AlexNet",
        AlexNet,
        images(2, 3, 16, 16),
        ("x",),
        share=0.45,
        why="local response normalisation sums over neighbouring channels: those of the first convolution stay",
    ),
    Family("VGG", VGG, images(2, 3, 16, 16), ("x",)),
    Family("GoogLeNet", GoogLeNet, images(2, 3, 16, 16), ("x",)),
    Family("Inception v3", InceptionV3, images(2, 3, 16, 16), ("x",)),
    Family("SqueezeNet", SqueezeNet, images(2, 3, 20, 20), ("x",)),
)
