"""Networks on sequences, points and tables without attention or recurrence."""

from __future__ import annotations

from itertools import pairwise

import torch
from family import Family, images
from torch import nn
from torch.nn import functional as F  # noqa: N812


class TemporalBlock(nn.Module):
    """arXiv 1803.01271: padded, dilated convolutions with weight norm, the surplus cut off at the end, and a sum."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.chomp = 2 * dilation
        self.a = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(inputs, outputs, 3, padding=self.chomp, dilation=dilation)
        )
        self.b = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(outputs, outputs, 3, padding=self.chomp, dilation=dilation)
        )
        self.short = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.a(x)[:, :, : -self.chomp])
        y = F.relu(self.b(y)[:, :, : -self.chomp])
        return F.relu(y + (x if self.short is None else self.short(x)))


class TCN(nn.Module):
    """Blocks of growing dilation, and a dense layer on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TemporalBlock(a, b, d) for a, b, d in ((4, 12, 1), (12, 12, 2), (12, 16, 4))))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x)[:, :, -1])


class WaveNet(nn.Module):
    """arXiv 1609.03499: causal dilated convolutions, a tanh gated by a sigmoid, residual and skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 12, 1)
        self.dilations = (1, 2, 4)
        self.gated = nn.ModuleList(nn.Conv1d(12, 24, 2, dilation=d) for d in self.dilations)
        self.residual = nn.ModuleList(nn.Conv1d(12, 12, 1) for _ in self.dilations)
        self.skip = nn.ModuleList(nn.Conv1d(12, 16, 1) for _ in self.dilations)
        self.out1, self.out2 = nn.Conv1d(16, 16, 1), nn.Conv1d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = self.stem(x), 0
        for dilation, gated, residual, skip in zip(self.dilations, self.gated, self.residual, self.skip, strict=True):
            value, gate = gated(F.pad(x, (dilation, 0))).chunk(2, 1)
            y = torch.tanh(value) * torch.sigmoid(gate)
            total = total + skip(y)
            x = x + residual(y)
        return self.out2(F.relu(self.out1(F.relu(total))))


class SeparationBlock(nn.Module):
    """arXiv 1809.07454: a bottleneck with a dilated depthwise convolution, normalised over channels and time."""

    def __init__(self, width: int, middle: int, dilation: int) -> None:
        super().__init__()
        self.enter, self.slope1, self.norm1 = nn.Conv1d(width, middle, 1), nn.PReLU(), nn.GroupNorm(1, middle)
        self.depth = nn.Conv1d(middle, middle, 3, padding=dilation, dilation=dilation, groups=middle)
        self.slope2, self.norm2 = nn.PReLU(), nn.GroupNorm(1, middle)
        self.residual, self.skip = nn.Conv1d(middle, width, 1), nn.Conv1d(middle, width, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm1(self.slope1(self.enter(x)))
        y = self.norm2(self.slope2(self.depth(y)))
        return x + self.residual(y), self.skip(y)


class ConvTasNet(nn.Module):
    """A learned basis, masks for two sources by such blocks, and the basis turned back into sound."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv1d(1, 16, 8, 4, bias=False), nn.ConvTranspose1d(16, 1, 8, 4, bias=False)
        self.norm, self.enter = nn.GroupNorm(1, 16), nn.Conv1d(16, 12, 1)
        self.blocks = nn.ModuleList(SeparationBlock(12, 24, d) for d in (1, 2))
        self.slope, self.masks = nn.PReLU(), nn.Conv1d(12, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sound = self.encode(x).relu()
        y, total = self.enter(self.norm(sound)), 0
        for block in self.blocks:
            y, skip = block(y)
            total = total + skip
        masks = self.masks(self.slope(total)).view(x.shape[0], 2, 16, -1).sigmoid()
        return torch.cat([self.decode(sound * masks[:, k]) for k in range(2)], 1)


def shared(*widths: int) -> nn.Sequential:
    """A dense net that all points share."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Alignment(nn.Module):
    """arXiv 1612.00593, T-Net: a matrix for each cloud, from a maximum over points, plus the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.points = shared(width, 12, 16)
        self.dense = nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, width * width))
        self.register_buffer("identity", torch.eye(width).reshape(1, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix = self.dense(self.points(x).max(2)[0]) + self.identity
        return torch.bmm(x.transpose(2, 1), matrix.view(-1, self.width, self.width)).transpose(2, 1)


class PointNet(nn.Module):
    """Points aligned in space and again in feature space, a maximum over all of them, dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.first, self.features = Alignment(3), shared(3, 16), Alignment(16)
        self.second = shared(16, 16, 32)
        self.head = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.features(self.first(self.space(x))))
        return F.log_softmax(self.head(torch.max(y, 2, keepdim=True)[0].view(-1, 32)), dim=1)


class DLRM(nn.Module):
    """arXiv 1906.00091: dense and looked-up features of one width; the products of all pairs feed the top net."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(rows, 8) for rows in (10, 20, 7))
        self.top = nn.Sequential(nn.Linear(8 + 6, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 1))
        pairs = [(i, j) for i in range(4) for j in range(i)]
        self.register_buffer("rows", torch.tensor([i for i, _ in pairs]))
        self.register_buffer("columns", torch.tensor([j for _, j in pairs]))

    def forward(self, x: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        dense = self.bottom(x)
        all_of_them = [dense, *(table(sparse[:, k]) for k, table in enumerate(self.tables))]
        stacked = torch.cat(all_of_them, 1).view(-1, 4, 8)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        return torch.sigmoid(self.top(torch.cat([dense, products[:, self.rows, self.columns]], 1)))


def dense_autoencoder() -> nn.Module:
    """Hinton and Salakhutdinov, 2006: dense layers to a narrow code and back, here with BatchNorm."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((20, 24), (24, 16), (16, 4), (4, 16), (16, 24)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(24, 20))


class MultilayerPerceptron(nn.Module):
    """Dense layers on a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 16), nn.SELU())
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)).softmax(-1)


class KeywordNet(nn.Module):
    """arXiv 1711.07128 on raw sound: strided 1-d convolutions, depthwise ones, a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, 12, 9, 4), nn.BatchNorm1d(12), nn.ReLU()]
        for inputs, outputs in ((12, 16), (16, 16)):
            layers += [nn.Conv1d(inputs, inputs, 3, 1, 1, groups=inputs), nn.BatchNorm1d(inputs), nn.ReLU()]
            layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten()), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


class Conv3d(nn.Module):
    """arXiv 1412.0767 and 1711.11248: volumes of frames; a kernel over space, then one over time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv3d(8, 12, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(12), nn.ReLU(),
            nn.Conv3d(12, 8, (3, 1, 1), padding=(1, 0, 0), bias=False), nn.BatchNorm3d(8),
        )  # fmt: skip
        self.last = nn.Sequential(nn.MaxPool3d(2), nn.Conv3d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.last(F.relu(x + self.block(x))).flatten(1))


def _clicks() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(3, 6), "sparse": torch.randint(0, 7, (3, 3))}


FAMILIES = (
    Family("TCN", TCN, images(2, 4, 12), ("x",)),
    Family("WaveNet", WaveNet, images(2, 4, 16), ("x",)),
    Family("Conv-TasNet", ConvTasNet, images(2, 1, 64), ("x",)),
    Family("keyword spotting", KeywordNet, images(2, 1, 64), ("x",)),
    Family("PointNet", PointNet, images(2, 3, 10), ("x",)),
    Family("3-d convolutions", Conv3d, images(2, 3, 4, 8, 8), ("x",)),
    Family("DLRM", DLRM, _clicks, ("x", "sparse")),
    Family("dense autoencoder", dense_autoencoder, images(3, 20), ("x",)),
    Family("multilayer perceptron", MultilayerPerceptron, images(3, 1, 8, 8), ("x",)),
)
