"""Detectors: several heads on maps of several sizes, whose boxes and classes end up in one list."""

from __future__ import annotations

import torch
from blocks import conv_bn
from family import Family, images
from torch import nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 3


def silu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """The convolution of the YOLO family."""
    return conv_bn(inputs, outputs, kernel, stride, act=nn.SiLU)


class Bottleneck(nn.Module):
    """Two convolutions, added to their input where that is asked for."""

    def __init__(self, width: int, add: bool) -> None:
        super().__init__()
        self.a, self.b, self.add = silu(width, width), silu(width, width), add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """Split, go on with the second half, and concatenate everything that was on the way."""

    def __init__(self, inputs: int, outputs: int, count: int = 1, add: bool = True) -> None:
        super().__init__()
        self.half = outputs // 2
        self.enter = silu(inputs, 2 * self.half, 1)
        self.blocks = nn.ModuleList(Bottleneck(self.half, add) for _ in range(count))
        self.leave = silu((2 + count) * self.half, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).split((self.half, self.half), 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class C3(nn.Module):
    """arXiv 1911.11929 (CSP): two projections of the input, one goes through the blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.a, self.b, self.c = silu(inputs, half, 1), silu(inputs, half, 1), silu(2 * half, outputs, 1)
        self.block = Bottleneck(half, True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.cat((self.block(self.a(x)), self.b(x)), 1))


class SPPF(nn.Module):
    """The same pool three times in a row, all of it concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = silu(width, width // 2, 1), silu(2 * width, width, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        y = self.pool(x)
        z = self.pool(y)
        return self.leave(torch.cat([x, y, z, self.pool(z)], 1))


class Neck(nn.Module):
    """Backbone, SPPF, and a path down and up again (PAN) that concatenates; gives three maps of 16 channels."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.a = nn.Sequential(silu(3, 8, 3, 2), silu(8, 12, 3, 2)), block(12, 16)
        self.b, self.c = nn.Sequential(silu(16, 16, 3, 2), block(16, 16)), nn.Sequential(silu(16, 24, 3, 2), SPPF(24))
        self.top1, self.top2 = block(40, 16), block(32, 16)
        self.down1, self.down2 = silu(16, 16, 3, 2), silu(16, 16, 3, 2)
        self.bottom1, self.bottom2 = block(32, 16), block(40, 16)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        a = self.a(self.stem(x))
        b = self.b(a)
        c = self.c(b)
        mid = self.top1(torch.cat([F.interpolate(c, scale_factor=2.0, mode="nearest"), b], 1))
        fine = self.top2(torch.cat([F.interpolate(mid, scale_factor=2.0, mode="nearest"), a], 1))
        mid = self.bottom1(torch.cat([self.down1(fine), mid], 1))
        return [fine, mid, self.bottom2(torch.cat([self.down2(mid), c], 1))]


def places(size: int) -> torch.Tensor:
    """(2, size * size): x and y of each position's centre."""
    at = torch.arange(size) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack((x.reshape(-1), y.reshape(-1)))


class YOLOv8(nn.Module):
    """C2f blocks; decoupled heads without anchor boxes: distances as expectations over bins (arXiv 2006.04388)."""

    BINS = 4

    def __init__(self) -> None:
        super().__init__()
        self.neck = Neck(C2f)
        self.boxes = nn.ModuleList(self._head(4 * self.BINS) for _ in range(3))
        self.classes = nn.ModuleList(self._head(CLASSES) for _ in range(3))
        self.register_buffer("bins", torch.arange(self.BINS).float().view(1, self.BINS, 1, 1))
        self.register_buffer("anchors", torch.cat([places(size) for size in (8, 4, 2)], 1))
        self.register_buffer("strides", torch.cat([torch.full((64 // 4**k,), 4.0 * 2**k) for k in range(3)]))

    @staticmethod
    def _head(outputs: int) -> nn.Module:
        return nn.Sequential(silu(16, 12), silu(12, 12), nn.Conv2d(12, outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps, found = self.neck(x), []
        for box, kind, each in zip(self.boxes, self.classes, maps, strict=True):
            found.append(torch.cat((box(each), kind(each)), 1).view(x.shape[0], 4 * self.BINS + CLASSES, -1))
        box, kind = torch.cat(found, 2).split((4 * self.BINS, CLASSES), 1)
        n, _, count = box.shape
        bins = box.view(n, 4, self.BINS, count).transpose(2, 1).softmax(1)
        near, far = F.conv2d(bins, self.bins).view(n, 4, count).chunk(2, 1)
        near, far = self.anchors - near, self.anchors + far
        return torch.cat((torch.cat(((near + far) / 2, far - near), 1) * self.strides, kind.sigmoid()), 1)


class YOLOv5(nn.Module):
    """CSP blocks; one convolution a map gives box, objectness and classes of three anchor boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = Neck(C3)
        self.heads = nn.ModuleList(nn.Conv2d(16, 3 * (5 + CLASSES), 1) for _ in range(3))
        for k, size in enumerate((8, 4, 2)):
            self.register_buffer(f"place{k}", places(size).T.reshape(1, 1, size, size, 2) - 1.0)
            self.register_buffer(f"anchor{k}", 4.0 * 2**k * (1 + torch.rand(1, 3, 1, 1, 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for k, (head, each) in enumerate(zip(self.heads, self.neck(x), strict=True)):
            y = head(each)
            n, _, h, w = y.shape
            y = y.view(n, 3, 5 + CLASSES, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            xy = (y[..., 0:2] * 2 + getattr(self, f"place{k}")) * (4.0 * 2**k)
            wh = (y[..., 2:4] * 2) ** 2 * getattr(self, f"anchor{k}")
            found.append(torch.cat((xy, wh, y[..., 4:]), -1).view(n, -1, 5 + CLASSES))
        return torch.cat(found, 1)


class SSD(nn.Module):
    """arXiv 1512.02325: classes and offsets from each of several maps, permuted, reshaped, concatenated, decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(conv_bn(3, 12, 3, 2), conv_bn(12, 16), conv_bn(16, 16, 3, 2))
        self.extra = nn.ModuleList([nn.Sequential(conv_bn(16, 12, 1), conv_bn(12, 16, 3, 2)) for _ in range(2)])
        self.classes = nn.ModuleList(nn.Conv2d(16, 2 * CLASSES, 3, padding=1) for _ in range(3))
        self.boxes = nn.ModuleList(nn.Conv2d(16, 2 * 4, 3, padding=1) for _ in range(3))
        self.register_buffer("priors", torch.rand(2 * (16 + 4 + 1), 4) + 0.1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = [self.base(x)]
        for extra in self.extra:
            maps.append(extra(maps[-1]))
        classes, boxes = (
            torch.cat([self._list(head(each), size) for head, each in zip(heads, maps, strict=True)], 1)
            for heads, size in ((self.classes, CLASSES), (self.boxes, 4))
        )
        centre = self.priors[:, :2] + boxes[..., :2] * 0.1 * self.priors[:, 2:]
        size = self.priors[:, 2:] * torch.exp(boxes[..., 2:] * 0.2)
        corner = centre - size / 2
        return classes.softmax(-1), torch.cat([corner, corner + size], -1)

    @staticmethod
    def _list(x: torch.Tensor, size: int) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).contiguous().view(x.shape[0], -1, size)


class RetinaNet(nn.Module):
    """arXiv 1708.02002: a feature pyramid of sums (1612.03144), and two towers that all levels share."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 8, 3, 2), conv_bn(8, 12, 3, 2), conv_bn(12, 16, 3, 2)
        self.laterals = nn.ModuleList(nn.Conv2d(width, 16, 1) for width in (8, 12, 16))
        self.smooth = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.classes, self.boxes = self._tower(2 * CLASSES), self._tower(2 * 4)

    @staticmethod
    def _tower(outputs: int) -> nn.Module:
        first, second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        norms = [nn.GroupNorm(4, 16) for _ in range(2)]
        return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU(), nn.Conv2d(16, outputs, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.a(x)
        b = self.b(a)
        levels = [lateral(each) for lateral, each in zip(self.laterals, (a, b, self.c(b)), strict=True)]
        for k in (1, 0):
            levels[k] = levels[k] + F.interpolate(levels[k + 1], size=levels[k].shape[-2:], mode="nearest")
        maps = [smooth(each) for smooth, each in zip(self.smooth, levels, strict=True)]
        classes, boxes = (
            torch.cat([SSD._list(tower(each), size) for each in maps], 1)
            for tower, size in ((self.classes, CLASSES), (self.boxes, 4))
        )
        return classes.sigmoid(), boxes


FAMILIES = (
    Family("YOLOv5", YOLOv5, images(1, 3, 32, 32), ("x",)),
    Family("YOLOv8", YOLOv8, images(1, 3, 32, 32), ("x",)),
    Family("SSD", SSD, images(2, 3, 16, 16), ("x",)),
    Family("RetinaNet", RetinaNet, images(2, 3, 16, 16), ("x",)),
)
