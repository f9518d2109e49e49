"""Forms of attention and of feed-forward layers that models write by hand, each in a small encoder of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from family import Family
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

WIDTH, HEADS, SIZE, STEPS = 32, 4, 8, 6


class Encoder(nn.Module):
    """Features to a stream, one block with residual sums before norms, and a head on the mean over the steps."""

    def __init__(self, attention: nn.Module, forward: nn.Module, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed, self.attention, self.feed = nn.Linear(12, WIDTH), attention, forward
        self.before, self.between, self.head = norm(), norm(), nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = x + self.attention(self.before(x))
        x = x + self.feed(self.between(x))
        return self.head(x.mean(1))


class Packed(nn.Module):
    """One product for queries, keys and values, split by `unbind`, mixed by scaled_dot_product_attention."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.causal = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(x.shape[0], STEPS, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], STEPS, WIDTH))


class Chunked(nn.Module):
    """nanoGPT: one product split by `chunk` into three tensors, then into heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.view(x.shape[0], STEPS, HEADS, SIZE).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(-2, -1) / SIZE**0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape[0], STEPS, WIDTH))


class Grouped(nn.Module):
    """arXiv 1911.02150, 2305.13245: few key heads, each for several query heads."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.q, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = nn.Linear(WIDTH, groups * SIZE), nn.Linear(WIDTH, groups * SIZE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).view(x.shape[0], STEPS, self.groups, HEADS // self.groups, SIZE).permute(0, 2, 3, 1, 4)
        k, v = (f(x).view(x.shape[0], STEPS, self.groups, 1, SIZE).permute(0, 2, 3, 1, 4) for f in (self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(-2, -1) * SIZE**-0.5, -1) @ v
        return self.out(mixed.permute(0, 3, 1, 2, 4).reshape(x.shape[0], STEPS, WIDTH))


class Einsum(nn.Module):
    """Heads as axes of the weights, all products written as `einsum`."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(WIDTH, HEADS, SIZE) * WIDTH**-0.5) for _ in range(3))
        self.out = nn.Parameter(torch.randn(HEADS, SIZE, WIDTH) * WIDTH**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.einsum("btc,chd->bthd", x, weight) for weight in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("bthd,bshd->bhts", q, k) * SIZE**-0.5, -1)
        return torch.einsum("bhts,bshd,hdc->btc", weights, v, self.out)


class Rotary(Chunked):
    """arXiv 2104.09864: neighbouring head dimensions turn together by an angle that grows with the position."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(STEPS)[:, None] * 100.0 ** (-torch.arange(0, SIZE, 2) / SIZE)
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = even * self.cosines - odd * self.sines, even * self.sines + odd * self.cosines
        return torch.stack(turned, -1).flatten(-2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.view(x.shape[0], STEPS, HEADS, SIZE).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        weights = torch.softmax(self.turn(q) @ self.turn(k).transpose(-2, -1) / SIZE**0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape[0], STEPS, WIDTH))


class Own(nn.Module):
    """PyTorch's MultiheadAttention with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Linear(nn.Module):
    """arXiv 2006.16236: no softmax over pairs; keys and values are contracted over the steps first."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.view(x.shape[0], STEPS, HEADS, SIZE).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        scale = 1 / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)
        mixed = q @ (k.transpose(-2, -1) @ v) * scale
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], STEPS, WIDTH))


class RMSNorm(nn.Module):
    """arXiv 1910.07467, written out: the TorchScript exporter does not know PyTorch's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Plain(nn.Module):
    """Two products and a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))


class Gated(nn.Module):
    """arXiv 2002.05202: GEGLU, both halves from one product."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 128), nn.Linear(64, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.gelu(gate) * value)


def encoder(name: str, attention: Callable[[], nn.Module], feed: Callable[[], nn.Module] = Plain) -> Family:
    """An encoder with LayerNorm, or RMSNorm beside a gated feed-forward layer."""
    norm = RMSNorm if feed is Gated else nn.LayerNorm
    return Family(
        name,
        lambda: Encoder(attention(), feed(), lambda: norm(WIDTH)),
        lambda: {"x": torch.randn(2, STEPS, 12)},
        ("x",),
        attention=True,
        slow=("dynamo",),
    )


def layer() -> nn.Module:
    """PyTorch's own encoder layer, with the norms first."""
    inner = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True, norm_first=True, activation="gelu")
    return nn.Sequential(nn.Linear(12, WIDTH), inner, nn.Linear(WIDTH, 5))


FAMILIES = (
    encoder("packed attention", Packed),
    encoder("causal attention, GEGLU, RMSNorm", lambda: Packed(causal=True), Gated),
    encoder("chunked attention", Chunked),
    encoder("grouped-query attention", lambda: Grouped(2)),
    encoder("multi-query attention", lambda: Grouped(1)),
    encoder("einsum attention", Einsum),
    encoder("interleaved rotary attention", Rotary),
    encoder("MultiheadAttention", Own),
    encoder("linear attention", Linear),
    Family("TransformerEncoderLayer", layer, lambda: {"x": torch.randn(2, STEPS, 12)}, ("x",), attention=True),
    Family(
        "causal attention, opset 23",
        lambda: Encoder(Packed(causal=True), Gated(), lambda: RMSNorm(WIDTH)),
        lambda: {"x": torch.randn(2, STEPS, 12)},
        ("x",),
        attention=True,
        exporters=("dynamo",),
        opsets={"dynamo": 23},
    ),
)
