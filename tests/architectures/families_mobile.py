"""Depthwise, shuffled and gated classifiers for small machines."""

from __future__ import annotations

import torch
from blocks import Classifier, SqueezeExcite, conv_bn
from family import Family, images
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Shortcut(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A depthwise convolution and a pointwise one, both normalised and activated."""
    return nn.Sequential(conv_bn(inputs, inputs, 3, stride, inputs), conv_bn(inputs, outputs, 1))


def mobilenet_v1() -> nn.Module:
    """arXiv 1704.04861: separable convolutions in a chain."""
    return nn.Sequential(conv_bn(3, 8, 3, 2), separable(8, 16), separable(16, 24, 2), separable(24, 24), Classifier(24))


def inverted(
    inputs: int,
    expand: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    act: type[nn.Module] = nn.ReLU6,
    gate: nn.Module | None = None,
) -> nn.Module:
    """Expansion, depthwise, (gate,) linear projection; added to the input where the sizes allow it."""
    layers: list[nn.Module] = [conv_bn(inputs, expand, 1, act=act)] if expand != inputs else []
    layers.append(conv_bn(expand, expand, kernel, stride, expand, act=act))
    layers += [gate] if gate is not None else []
    branch = nn.Sequential(*layers, conv_bn(expand, outputs, 1, act=None))
    return Shortcut(branch) if inputs == outputs and stride == 1 else branch


def mobilenet_v2() -> nn.Module:
    """arXiv 1801.04381: linear bottlenecks between the expansions, ReLU6."""
    return nn.Sequential(
        conv_bn(3, 8, 3, 2, act=nn.ReLU6), inverted(8, 8, 6), inverted(6, 24, 8), inverted(8, 32, 8),
        inverted(8, 32, 12, stride=2), conv_bn(12, 32, 1, act=nn.ReLU6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 5),
    )  # fmt: skip


def mobilenet_v3() -> nn.Module:
    """arXiv 1905.02244: hard swish, gates with a hard sigmoid, a dense layer before the classifier."""

    def gate(width: int) -> nn.Module:
        return SqueezeExcite(width, 4, gate=nn.Hardsigmoid)

    return nn.Sequential(
        conv_bn(3, 8, 3, 2, act=nn.Hardswish), inverted(8, 8, 8, act=nn.ReLU, gate=gate(8)),
        inverted(8, 24, 8, 5, act=nn.Hardswish, gate=gate(24)), inverted(8, 24, 12, 5, 2, nn.Hardswish, gate(24)),
        conv_bn(12, 32, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 24), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(24, 5),
    )  # fmt: skip


def efficientnet() -> nn.Module:
    """arXiv 1905.11946: the same blocks with SiLU, gated by a fraction of the block's input; drop path is off."""

    def gate(width: int, inputs: int) -> nn.Module:
        return SqueezeExcite(width, max(inputs // 4, 2), act=nn.SiLU)

    return nn.Sequential(
        conv_bn(3, 8, 3, 2, act=nn.SiLU), inverted(8, 8, 6, act=nn.SiLU, gate=gate(8, 8)),
        inverted(6, 24, 8, 5, 2, nn.SiLU, gate(24, 6)), inverted(8, 32, 8, 5, 1, nn.SiLU, gate(32, 8)),
        conv_bn(8, 24, 1, act=nn.SiLU), Classifier(24),
    )  # fmt: skip


def mnasnet() -> nn.Module:
    """arXiv 1807.11626: a separable stem, then inverted residuals of kernels 3 and 5, without gates."""
    return nn.Sequential(
        conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 1, 8), conv_bn(8, 6, 1, act=None), inverted(6, 18, 8, 3, 2, nn.ReLU),
        inverted(8, 24, 8, 5, 1, nn.ReLU), inverted(8, 24, 12, 5, 1, nn.ReLU), conv_bn(12, 32, 1), Classifier(32),
    )  # fmt: skip


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Channels (group, place) as (place, group)."""
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleUnit(nn.Module):
    """arXiv 1807.11164: half of the channels pass (stride 1), or both halves are made from all of them (stride 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, self.split = outputs // 2, stride == 1
        enter = half if self.split else inputs
        self.right = nn.Sequential(
            conv_bn(enter, half, 1), conv_bn(half, half, 3, stride, half, act=None), conv_bn(half, half, 1)
        )
        if not self.split:
            self.left = nn.Sequential(conv_bn(inputs, inputs, 3, stride, inputs, act=None), conv_bn(inputs, half, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.split:
            left, right = x.chunk(2, dim=1)
            return shuffle(torch.cat((left, self.right(right)), 1), 2)
        return shuffle(torch.cat((self.left(x), self.right(x)), 1), 2)


def shufflenet_v2() -> nn.Module:
    """A reducing unit and two splitting ones."""
    units = (ShuffleUnit(8, 16, 2), ShuffleUnit(16, 16, 1), ShuffleUnit(16, 16, 1))
    return nn.Sequential(conv_bn(3, 8, 3, 2), *units, conv_bn(16, 24, 1), Classifier(24))


class GroupShuffle(nn.Module):
    """arXiv 1707.01083: grouped pointwise convolutions with a shuffle between them, and a sum."""

    def __init__(self, width: int, middle: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.enter, self.leave = conv_bn(width, middle, 1, 1, groups), conv_bn(middle, width, 1, 1, groups, act=None)
        self.depth = conv_bn(middle, middle, 3, 1, middle, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.leave(self.depth(shuffle(self.enter(x), self.groups))))


def shufflenet_v1() -> nn.Module:
    """Two such units of two groups."""
    units = (GroupShuffle(24, 16, 2), GroupShuffle(24, 16, 2))
    return nn.Sequential(conv_bn(3, 24, 3, 2), *units, conv_bn(24, 32, 1), Classifier(32))


def entry(inputs: int, outputs: int, act: bool) -> list[nn.Module]:
    """An activation before a separable convolution without one inside."""
    layers: list[nn.Module] = [nn.ReLU()] if act else []
    depth = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return [*layers, depth, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]


class XceptionBlock(nn.Module):
    """arXiv 1610.02357: separable convolutions and a pool beside a strided, projected shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *entry(inputs, outputs, True), *entry(outputs, outputs, True), nn.MaxPool2d(3, 2, 1)
        )
        self.short = conv_bn(inputs, outputs, 1, 2, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + self.short(x)


def xception() -> nn.Module:
    """An entry block, and a middle block with a plain shortcut."""
    middle = nn.Sequential(*entry(16, 16, True), *entry(16, 16, True))
    last = nn.Sequential(*entry(16, 24, False), nn.ReLU())
    return nn.Sequential(conv_bn(3, 8), XceptionBlock(8, 16), Shortcut(middle), last, Classifier(24))


class Ghost(nn.Module):
    """arXiv 1911.11907: half of the maps by a convolution, the rest from those by a cheap depthwise one."""

    def __init__(self, inputs: int, outputs: int, act: type[nn.Module] | None = nn.ReLU) -> None:
        super().__init__()
        half = (outputs + 1) // 2
        self.outputs, self.primary = outputs, conv_bn(inputs, half, 1, act=act)
        self.cheap = conv_bn(half, half, 3, 1, half, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.outputs]


def ghostnet() -> nn.Module:
    """Bottlenecks of two ghost modules with a gate, one of an odd width; a strided one; sums."""
    first = nn.Sequential(Ghost(12, 24), SqueezeExcite(24, 6, gate=nn.Hardsigmoid), Ghost(24, 12, None))
    second = nn.Sequential(Ghost(12, 24), conv_bn(24, 24, 3, 2, 24, act=None), Ghost(24, 11, None))
    return nn.Sequential(conv_bn(3, 12, 3, 2), Shortcut(first), second, conv_bn(11, 24, 1), Classifier(24))


FAMILIES = (
    Family("MobileNet v1", mobilenet_v1, images(2, 3, 16, 16), ("x",)),
    Family("MobileNet v2", mobilenet_v2, images(2, 3, 16, 16), ("x",)),
    Family("MobileNet v3", mobilenet_v3, images(2, 3, 16, 16), ("x",)),
    Family("EfficientNet", efficientnet, images(2, 3, 16, 16), ("x",)),
    Family("MNASNet", mnasnet, images(2, 3, 16, 16), ("x",)),
    Family("ShuffleNet v1", shufflenet_v1, images(2, 3, 16, 16), ("x",)),
    Family("ShuffleNet v2", shufflenet_v2, images(2, 3, 16, 16), ("x",)),
    Family("Xception", xception, images(2, 3, 12, 12), ("x",)),
    Family("GhostNet", ghostnet, images(2, 3, 16, 16), ("x",)),
)
