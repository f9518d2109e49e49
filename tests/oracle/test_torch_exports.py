"""What PyTorch's two exporters write: blocks of well-known networks, canonicalised, pruned and proved."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from proving import prove, random_keep

from onnxprune import canonicalize, channels, ir

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.torch


class Residual(nn.Module):
    """ResNet: two blocks, the second with a strided, projected shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.a = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))  # fmt: skip
        self.b = nn.Sequential(
            nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))  # fmt: skip
        self.short = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.a(x))
        x = F.relu(self.short(x) + self.b(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class PaddedShortcut(nn.Module):
    """CIFAR ResNet, option A: every second pixel, zero channels on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    """MobileNetV3: expansion, depthwise, squeeze and excitation, hard swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.expand, self.n1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth, self.n2 = nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project, self.n3 = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.hardswish(self.stem(x))
        y = F.hardswish(self.n1(self.expand(x)))
        y = F.hardswish(self.n2(self.depth(y)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.head((x + self.n3(self.project(y))).mean((2, 3)))


class Shuffle(nn.Module):
    """ShuffleNetV2: chunk, branch, concatenate, shuffle by view and transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.point, self.depth = (
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        )
        self.last, self.head = nn.Conv2d(16, 12, 1), nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        left, right = x.chunk(2, dim=1)
        right = F.relu(self.depth(F.relu(self.point(right))))
        x = torch.cat((left, right), 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Dense(nn.Module):
    """DenseNet: pre-activation over everything so far."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * k) for k in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * k, 4, 3, padding=1) for k in range(3))
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.head(F.max_pool2d(F.relu(x), 4).flatten(1)[:, :20])


class UNet(nn.Module):
    """U-Net with GroupNorm, a transposed convolution, a skip connection and bilinear upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.g1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.mid, self.g2 = nn.Conv2d(8, 16, 3, 2, 1), nn.GroupNorm(2, 16)
        self.up, self.fuse, self.out = (
            nn.ConvTranspose2d(16, 8, 2, 2),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.Conv2d(8, 1, 1),
        )

    def forward(self, x):
        x = F.silu(self.g1(self.down(x)))
        y = self.up(F.silu(self.g2(self.mid(x))))
        y = F.leaky_relu(self.fuse(torch.cat([x, y], 1)), 0.1)
        return self.out(F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False))


class ConvNeXt(nn.Module):
    """Depthwise, LayerNorm over channels behind a permutation, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.scale, self.head = nn.Parameter(torch.rand(8, 1, 1)), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.head((x + self.scale * y).mean((2, 3)))


class VisionTransformer(nn.Module):
    """Patches, class token, positions, one encoder layer of PyTorch, a head on the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 24 * 3), nn.Linear(24, 12)
        self.up, self.down, self.head = nn.Linear(12, 32), nn.Linear(32, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1) * 6**-0.5).softmax(-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(n, t, 24))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x[:, 0])


class Encoder(nn.Module):
    """BERT-like: embeddings, separate projections, an additive mask, gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
        self.n1, self.n2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.gate, self.up, self.down = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 12)

    def heads(self, x):
        return x.view(x.shape[0], x.shape[1], 3, 4).transpose(1, 2)

    def forward(self, x):
        scores = self.heads(self.q(x)) @ self.heads(self.k(x)).transpose(-1, -2) / 2.0
        mixed = (torch.softmax(scores, -1) @ self.heads(self.v(x))).transpose(1, 2)
        x = self.n1(x + self.o(mixed.reshape(x.shape[0], x.shape[1], 12)))
        return self.n2(x + self.down(F.silu(self.gate(x)) * self.up(x)))


class PixelShuffle(nn.Module):
    """ESPCN and a long skip."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 12, 5, padding=2),
            nn.Conv2d(12, 32, 3, padding=1),
            nn.Conv2d(8, 3, 3, padding=1),
        )
        self.slope = nn.PReLU(12)

    def forward(self, x):
        y = F.pixel_shuffle(torch.tanh(self.b(self.slope(self.a(x)))), 2)
        return self.c(y) + F.interpolate(x, scale_factor=2, mode="nearest")


IMAGE, TOKENS = (2, 3, 8, 8), (2, 5, 12)
# (input shape, least number of groups)
MODELS: dict[str, tuple[Callable[[], Any], tuple[int, ...], int]] = {
    "residual": (Residual, IMAGE, 4),
    "padded shortcut": (PaddedShortcut, IMAGE, 2),
    "inverted residual": (InvertedResidual, IMAGE, 3),
    "shuffle": (Shuffle, IMAGE, 3),
    "dense": (Dense, IMAGE, 4),
    "unet": (UNet, IMAGE, 3),
    "convnext": (ConvNeXt, IMAGE, 2),
    "vision transformer": (VisionTransformer, IMAGE, 3),
    "encoder": (Encoder, TOKENS, 2),
    "pixel shuffle": (PixelShuffle, IMAGE, 2),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Exporters warn and log about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        yield
        logging.disable(logging.NOTSET)


def export(name: str, dynamo: bool, dynamic: bool, path: Path) -> onnx.ModelProto:
    build, shape, _ = MODELS[name]
    torch.manual_seed(0)
    module = build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    module.eval()
    args: dict[str, Any] = {"input_names": ["x"], "opset_version": 18 if dynamo else 17, "dynamo": dynamo}
    if dynamic and dynamo:
        args["dynamic_shapes"] = ({0: torch.export.Dim("N", min=1, max=64)},)
    elif dynamic:
        args["dynamic_axes"] = {"x": {0: "N"}}
    if dynamo:
        torch.onnx.export(module, (torch.randn(shape),), path, external_data=False, verbose=False, **args)
        return onnx.load(path)
    buffer = io.BytesIO()
    torch.onnx.export(module, (torch.randn(shape),), buffer, **args)
    return onnx.load_from_string(buffer.getvalue())


def check(name: str, dynamo: bool, dynamic: bool, granularity: str, path: Path) -> None:
    proto = canonicalize(export(name, dynamo, dynamic, path))
    original = ir.from_proto(proto)
    ir.infer_shapes(original)
    graph = channels.analyze(original, granularity=granularity)
    assert len(graph.groups) >= MODELS[name][2], [str(f) for f in graph.frozen]
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal(MODELS[name][1]).astype(np.float32)}]
    masks = {g.name: keep for g in graph.groups if (keep := random_keep(g, rng, 0.4)) is not None}
    for keep in (masks, *({name: mask} for name, mask in masks.items())):
        verdict = prove(original, graph, keep, feeds)
        assert verdict.ok, (list(keep), verdict)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_torchscript_export(name: str, dynamic: bool, tmp_path: Path) -> None:
    check(name, False, dynamic, "head" if dynamic else "head_dim", tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["residual", "vision transformer"])
def test_dynamo_export(name: str, tmp_path: Path) -> None:
    check(name, True, True, "head", tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_dynamo_export_of_every_model(name: str, dynamic: bool, tmp_path: Path) -> None:
    check(name, True, dynamic, "head_dim" if dynamic else "head", tmp_path / "m.onnx")
