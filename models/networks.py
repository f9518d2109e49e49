"""The three networks that `make_models.py` trains on 32 x 32 grey digits: PyTorch modules, input (n, 1, 32, 32)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


def normed_conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Returns a convolution without bias and its batch normalization."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, the second grouped, beside an identity or a 1 x 1 projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.first = normed_conv(inputs, outputs, 3, stride)
        self.second = normed_conv(outputs, outputs, 3, groups=groups)
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else normed_conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class InvertedBlock(nn.Module):
    """1 x 1 expansion, depthwise 3 x 3 convolution, 1 x 1 projection, added to the input (arXiv 1801.04381)."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = normed_conv(width, inner, 1)
        self.depthwise = normed_conv(inner, inner, 3, groups=inner)
        self.project = normed_conv(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x))))
        return x + self.project(inner)


class DigitsResNet(nn.Module):
    """A residual CNN with plain, grouped and depthwise convolutions: 26 MMACs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = normed_conv(1, 16, 3)
        self.blocks = nn.Sequential(
            BasicBlock(16, 16, 1, groups=1),
            BasicBlock(16, 16, 1, groups=1),
            BasicBlock(16, 32, 2, groups=1),
            BasicBlock(32, 32, 1, groups=2),
            InvertedBlock(32, 3),
            BasicBlock(32, 64, 2, groups=1),
            BasicBlock(64, 64, 1, groups=4),
            InvertedBlock(64, 2),
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.stem(image)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection to queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.joint = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens, width = x.shape[1], x.shape[2]
        joint = self.joint(x).reshape(-1, tokens, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = joint[0], joint[1], joint[2]
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.head_width**-0.5, dim=-1)
        return self.output((weights @ value).transpose(1, 2).reshape(-1, tokens, width))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer normalization and beside an identity."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.perceptron = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first_norm(x))
        return x + self.perceptron(self.second_norm(x))  # type: ignore[no-any-return]


class DigitsViT(nn.Module):
    """A vision transformer (arXiv 2010.11929): 64 overlapping patches, 3 blocks of 64 features, 4 heads."""

    def __init__(self, width: int = 64, blocks: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 12, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, 2 * width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))  # type: ignore[no-any-return]


class DigitsMLP(nn.Module):
    """A perceptron with two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(1024, 192), nn.ReLU(), nn.Linear(192, 128), nn.ReLU())
        self.head = nn.Linear(128, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.hidden(image))  # type: ignore[no-any-return]
