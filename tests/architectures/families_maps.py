"""Networks from images to maps: U-Nets, diffusion, segmentation, multi-resolution fusion, super-resolution."""

from __future__ import annotations

import math

import torch
from blocks import conv_bn
from family import Family, images
from torch import nn
from torch.nn import functional as F  # noqa: N812


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two normalised convolutions."""
    return nn.Sequential(conv_bn(inputs, outputs), conv_bn(outputs, outputs))


class UNet(nn.Module):
    """arXiv 1505.04597: what goes down is concatenated to what comes up, by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = double(3, 8), double(8, 12), double(12, 16)
        self.up1, self.d = nn.ConvTranspose2d(16, 12, 2, 2), double(24, 12)
        self.up2, self.e = nn.ConvTranspose2d(12, 8, 2, 2), double(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        y = self.d(torch.cat([b, self.up1(self.c(F.max_pool2d(b, 2)))], 1))
        return self.out(self.e(torch.cat([a, self.up2(y)], 1)))


class TimedBlock(nn.Module):
    """arXiv 2105.05233: GroupNorm, SiLU, convolution, twice; the time embedding shifts and scales the second norm."""

    def __init__(self, inputs: int, outputs: int, time: int, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, 2 * outputs if scaled else outputs)
        self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        shift = self.time(F.silu(time))[:, :, None, None]
        if self.scaled:
            scale, shift = shift.chunk(2, dim=1)
            y = self.norm2(y) * (1 + scale) + shift
        else:
            y = self.norm2(y + shift)
        return self.short(x) + self.conv2(F.silu(y))


class MapAttention(nn.Module):
    """Self-attention over the positions of a map, with heads; query, key and value by one 1 x 1 convolution."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        scores = (q.transpose(-1, -2) @ k / math.sqrt(c // self.heads)).softmax(-1)
        y = (v @ scores.transpose(-1, -2)).reshape(n, c, h, w)
        return x + self.out(y)


class DiffusionUNet(nn.Module):
    """arXiv 2006.11239: a U-Net of timed blocks with GroupNorm, attention in the middle, a sinusoidal time."""

    def __init__(self) -> None:
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(8, 16), nn.Linear(16, 16)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a, self.down = TimedBlock(16, 16, 16, True), nn.Conv2d(16, 16, 3, 2, 1)
        self.b, self.attention, self.c = (
            TimedBlock(16, 32, 16, True),
            MapAttention(32, 4),
            TimedBlock(32, 32, 16, False),
        )
        self.up = nn.Conv2d(32, 16, 3, padding=1)
        self.d = TimedBlock(32, 16, 16, False)
        self.norm, self.out = nn.GroupNorm(8, 16), nn.Conv2d(16, 3, 3, padding=1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * torch.arange(4) / 4))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angles = t[:, None].float() * self.frequencies
        time = self.dense2(F.silu(self.dense1(torch.cat([angles.sin(), angles.cos()], 1))))
        x = self.stem(x)
        a = self.a(x, time)
        y = self.c(self.attention(self.b(self.down(a), time)), time)
        y = self.up(F.interpolate(y, scale_factor=2.0, mode="nearest"))
        y = self.d(torch.cat([y, a], 1), time)
        return self.out(F.silu(self.norm(y)))


class ImagePool(nn.Module):
    """The mean of each channel, projected, and spread over the map again."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = conv_bn(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.project(F.adaptive_avg_pool2d(x, 1))
        return F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False)


class DeepLab(nn.Module):
    """arXiv 1802.02611: dilated branches and pooled context side by side; a decoder adds early features by concat."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = conv_bn(3, 8, 3, 2), nn.Sequential(conv_bn(8, 16, 3, 2), conv_bn(16, 16, dilation=2))
        self.branches = nn.ModuleList(
            [conv_bn(16, 8, 1), conv_bn(16, 8, dilation=2), conv_bn(16, 8, dilation=3), ImagePool(16, 8)]
        )
        self.project, self.reduce = nn.Sequential(conv_bn(32, 12, 1), nn.Dropout(0.5)), conv_bn(8, 6, 1)
        self.decode, self.out = conv_bn(18, 12), nn.Conv2d(12, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low(x)
        high = self.high(low)
        y = self.project(torch.cat([branch(high) for branch in self.branches], 1))
        y = F.interpolate(y, size=low.shape[-2:], mode="bilinear", align_corners=False)
        y = self.out(self.decode(torch.cat([y, self.reduce(low)], 1)))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


class HRNet(nn.Module):
    """arXiv 1908.07919: maps of several sizes side by side; each becomes the sum of all, resized to it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fork = conv_bn(3, 8, 3, 2), conv_bn(8, 12, 3, 2)
        self.fine, self.coarse = conv_bn(8, 8), conv_bn(12, 12)
        self.rise, self.sink = conv_bn(12, 8, 1, act=None), conv_bn(8, 12, 3, 2, act=None)
        self.join, self.out = conv_bn(20, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        fine, coarse = self.fine(x), self.coarse(self.fork(x))
        wide = F.interpolate(self.rise(coarse), size=fine.shape[2:], mode="bilinear", align_corners=True)
        fine, coarse = F.relu(fine + wide), F.relu(coarse + self.sink(fine))
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True)
        return self.out(self.join(torch.cat([fine, coarse], 1)))


class Hourglass(nn.Module):
    """arXiv 1603.06937: halved, processed, doubled and added to the skip; each stack's heat maps are fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.skips, self.lows = (nn.ModuleList(conv_bn(12, 12) for _ in range(2)) for _ in range(2))
        self.features = nn.ModuleList(conv_bn(12, 12, 1) for _ in range(2))
        self.heats = nn.ModuleList(nn.Conv2d(12, 3, 1) for _ in range(2))
        self.again, self.back = nn.Conv2d(12, 12, 1), nn.Conv2d(3, 12, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, heats = self.stem(x), []
        for k in range(2):
            low = F.interpolate(self.lows[k](F.max_pool2d(x, 2)), scale_factor=2.0, mode="nearest")
            y = self.features[k](self.skips[k](x) + low)
            heats.append(self.heats[k](y))
            x = x + self.again(y) + self.back(heats[-1])
        return heats[0], heats[1]


class SuperResolution(nn.Module):
    """arXiv 1609.05158 and 1707.02921: residual blocks without norms, and two PixelShuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.slope = nn.Conv2d(3, 12, 5, padding=2), nn.PReLU(12)
        self.a, self.b = (
            nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1)) for _ in range(2)
        )
        self.up1, self.up2 = (
            nn.Sequential(nn.Conv2d(12, 48, 3, padding=1), nn.PixelShuffle(2)),
            nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.slope(self.stem(x))
        z = y + 0.1 * self.a(y)
        z = z + 0.1 * self.b(z)
        skip = F.interpolate(x, scale_factor=4.0, mode="bicubic", align_corners=False)
        return torch.clamp(self.up2(self.up1(y + z)) + skip, 0, 1)


class ConvAutoencoder(nn.Module):
    """Strided convolutions to a dense code, and transposed ones back from it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ELU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ELU(), nn.Flatten(), nn.Linear(256, 12)
        )
        self.decode = nn.Sequential(
            nn.Linear(12, 256), nn.Unflatten(1, (16, 4, 4)), nn.ELU(), nn.ConvTranspose2d(16, 8, 3, 2, 1, 1),
            nn.BatchNorm2d(8), nn.ELU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))


class StyleTransfer(nn.Module):
    """arXiv 1603.08155 and 1607.08022: reflection padding, InstanceNorm with scales, residual blocks, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(*self._layer(3, 8, 5, 1), nn.ReLU(), *self._layer(8, 16, 3, 2), nn.ReLU())
        self.block = nn.Sequential(*self._layer(16, 16, 3, 1), nn.ReLU(), *self._layer(16, 16, 3, 1))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2.0),
            *self._layer(16, 8, 3, 1),
            nn.ReLU(),
            nn.ReflectionPad2d(2),
            nn.Conv2d(8, 3, 5),
        )

    @staticmethod
    def _layer(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
        norm = nn.InstanceNorm2d(outputs, affine=True)
        return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride), norm]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        return self.up(x + self.block(x)).tanh()


def _noisy() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(2, 3, 8, 8), "t": torch.tensor([3, 500])}


FAMILIES = (
    Family("U-Net", UNet, images(2, 3, 16, 16), ("x",)),
    Family("diffusion U-Net", DiffusionUNet, _noisy, ("x", "t")),
    Family("DeepLab v3+", DeepLab, images(2, 3, 24, 24), ("x",)),
    Family("HRNet", HRNet, images(2, 3, 16, 16), ("x",)),
    Family("stacked hourglass", Hourglass, images(2, 3, 8, 8), ("x",)),
    Family("super-resolution", SuperResolution, images(2, 3, 6, 6), ("x",)),
    Family("convolutional autoencoder", ConvAutoencoder, images(2, 3, 16, 16), ("x",)),
    Family("style transfer", StyleTransfer, images(2, 3, 12, 12), ("x",)),
)
