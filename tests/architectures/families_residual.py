"""Residual and densely connected classifiers."""

from __future__ import annotations

import torch
from blocks import Classifier, SqueezeExcite, conv_bn
from family import Family, images
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Sum(nn.Module):
    """relu(shortcut(x) + branch(x)); the shortcut is a projection where sizes differ."""

    def __init__(self, branch: nn.Module, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        plain = inputs == outputs and stride == 1
        self.branch = branch
        self.shortcut = nn.Identity() if plain else conv_bn(inputs, outputs, 1, stride, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.branch(x))


def basic(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """ResNet-18: two convolutions of 3 x 3."""
    branch = nn.Sequential(conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, act=None))
    return Sum(branch, inputs, outputs, stride)


def bottleneck(inputs: int, middle: int, outputs: int, stride: int = 1, groups: int = 1, gate: int = 0) -> nn.Module:
    """ResNet-50: 1 x 1, (grouped) 3 x 3, 1 x 1; with `gate`, the last is followed by squeeze and excitation."""
    branch = nn.Sequential(
        conv_bn(inputs, middle, 1), conv_bn(middle, middle, 3, stride, groups), conv_bn(middle, outputs, 1, act=None)
    )
    if gate:
        branch.append(SqueezeExcite(outputs, gate))
    return Sum(branch, inputs, outputs, stride)


class Staged(nn.Module):
    """A stem, blocks, the mean of each channel, and a dense layer."""

    def __init__(self, stem: int, *blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, stem), *blocks)
        self.head = Classifier(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def resnet18() -> nn.Module:
    """arXiv 1512.03385: the first block keeps its size, the next ones halve it through a projected shortcut."""
    return Staged(8, nn.MaxPool2d(3, 2, 1), basic(8, 8), basic(8, 16, 2), basic(16, 16), width=16)


def resnet50() -> nn.Module:
    """arXiv 1512.03385: bottlenecks whose ends are four times as wide as their middle."""
    return Staged(8, bottleneck(8, 6, 24), bottleneck(24, 6, 24), bottleneck(24, 8, 32, 2), width=32)


def resnext() -> nn.Module:
    """arXiv 1611.05431: the middle convolution of a bottleneck has groups of the same width."""
    return Staged(8, bottleneck(8, 16, 24, groups=4), bottleneck(24, 16, 24, groups=4), width=24)


def se_resnet() -> nn.Module:
    """arXiv 1709.01507: each bottleneck's output is gated by its own channel means before the sum."""
    return Staged(8, bottleneck(8, 8, 24, gate=4), bottleneck(24, 8, 24, gate=4), width=24)


def regnet() -> nn.Module:
    """arXiv 2003.13678, RegNetY: groups of a fixed width, more of them in each stage, gated in the middle."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        branch = nn.Sequential(
            conv_bn(inputs, outputs, 1), conv_bn(outputs, outputs, 3, stride, outputs // 8),
            SqueezeExcite(outputs, inputs // 4), conv_bn(outputs, outputs, 1, act=None),
        )  # fmt: skip
        return Sum(branch, inputs, outputs, stride)

    return Staged(8, block(8, 16, 2), block(16, 16, 1), block(16, 24, 2), width=24)


class WideBlock(nn.Module):
    """arXiv 1605.07146: normalised and activated before each convolution, with dropout between the two."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.drop = nn.Dropout(0.3)
        self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(x))
        shortcut = x if self.short is None else self.short(y)
        return shortcut + self.conv2(self.drop(F.relu(self.norm2(self.conv1(y)))))


class WideResNet(nn.Module):
    """Pre-activated blocks, and a last norm behind the sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(WideBlock(8, 24, 1), WideBlock(24, 24, 1), WideBlock(24, 32, 2))
        self.norm, self.head = nn.BatchNorm2d(32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(F.avg_pool2d(x, 8).view(-1, 32))


class PaddedBlock(nn.Module):
    """arXiv 1512.03385, option A: every second pixel, and zero channels on both sides instead of a projection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grow = (outputs - inputs) // 2
        self.branch = nn.Sequential(conv_bn(inputs, outputs, 3, 2), conv_bn(outputs, outputs, act=None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grow, self.grow))
        return F.relu(short + self.branch(x))


def cifar_resnet() -> nn.Module:
    """The CIFAR networks of the same paper: basic blocks, shortcuts without weights."""
    return Staged(8, basic(8, 8), PaddedBlock(8, 16), PaddedBlock(16, 32), width=32)


class DenseLayer(nn.Module):
    """arXiv 1608.06993: norm, bottleneck, norm, convolution; the output joins everything before it."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class DenseNet(nn.Module):
    """Two dense blocks with a transition that halves width and size between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8, 3), nn.MaxPool2d(2))
        self.first = nn.Sequential(*(DenseLayer(8 + 4 * k, 4) for k in range(3)))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1, bias=False), nn.AvgPool2d(2)
        )
        self.second = nn.Sequential(*(DenseLayer(10 + 4 * k, 4) for k in range(2)))
        self.norm, self.head = nn.BatchNorm2d(18), Classifier(18)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.transition(self.first(self.stem(x))))
        return self.head(F.relu(self.norm(x)))


class Res2Block(nn.Module):
    """arXiv 1904.01169: the bottleneck's middle is split; each part adds the one before it to its input."""

    def __init__(self, width: int, middle: int, scale: int) -> None:
        super().__init__()
        self.enter, self.leave = conv_bn(width, middle, 1), conv_bn(middle, width, 1, act=None)
        self.parts = nn.ModuleList(conv_bn(middle // scale, middle // scale) for _ in range(scale - 1))
        self.part = middle // scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *rest = torch.split(self.enter(x), self.part, 1)
        done, last = [first], None
        for part, conv in zip(rest, self.parts, strict=True):
            last = conv(part if last is None else part + last)
            done.append(last)
        return F.relu(x + self.leave(torch.cat(done, 1)))


def res2net() -> nn.Module:
    """Two such bottlenecks of four parts."""
    return Staged(12, Res2Block(12, 16, 4), nn.MaxPool2d(2), Res2Block(12, 16, 4), width=12)


FAMILIES = (
    Family("ResNet-18", resnet18, images(2, 3, 16, 16), ("x",)),
    Family("ResNet-50", resnet50, images(2, 3, 12, 12), ("x",)),
    Family("ResNeXt", resnext, images(2, 3, 12, 12), ("x",)),
    Family("SE-ResNet", se_resnet, images(2, 3, 12, 12), ("x",)),
    Family("RegNet", regnet, images(2, 3, 16, 16), ("x",)),
    Family("Wide-ResNet", WideResNet, images(2, 3, 16, 16), ("x",)),
    Family("CIFAR ResNet", cifar_resnet, images(2, 3, 16, 16), ("x",)),
    Family("DenseNet", DenseNet, images(2, 3, 16, 16), ("x",)),
    Family("Res2Net", res2net, images(2, 3, 12, 12), ("x",)),
)
