"""Transformers whose stream is neither text nor image alone: sound, latent arrays, pairs of towers."""

from __future__ import annotations

import torch
from family import Family
from huggingface import tiny
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)


class Feed(nn.Module):
    """Conformer's half-step feed-forward layer, with swish."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.5 * self.down(F.silu(self.up(self.norm(x))))


class Conformer(nn.Module):
    """arXiv 2005.08100: attention and a gated depthwise convolution between two half feed-forward layers."""

    def __init__(self) -> None:
        super().__init__()
        self.sub, self.first, self.second = nn.Conv1d(16, 32, 3, 2, 1), Feed(), Feed()
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.wide, self.depth = nn.Conv1d(32, 64, 1), nn.Conv1d(32, 32, 3, padding=1, groups=32)
        self.batch, self.point, self.head = nn.BatchNorm1d(32), nn.Conv1d(32, 32, 1), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.sub(x).transpose(1, 2))
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = F.glu(self.wide(self.norms[1](x).transpose(1, 2)), 1)
        x = x + self.point(F.silu(self.batch(self.depth(y)))).transpose(1, 2)
        return self.head(self.norms[2](self.second(x)))


class Perceiver(nn.Module):
    """arXiv 2103.03206: a latent array, the same for all samples, reads the input by cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.embed = nn.Parameter(torch.randn(4, 32)), nn.Linear(12, 32)
        self.cross, self.within = (nn.MultiheadAttention(32, 4, batch_first=True) for _ in range(2))
        self.first, self.second, self.head = Feed(), Feed(), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, z = self.embed(x), self.latents.expand(x.shape[0], -1, -1)
        z = self.first(z + self.cross(z, x, x, need_weights=False)[0])
        z = self.second(z + self.within(z, z, z, need_weights=False)[0])
        return self.head(z.mean(1))


TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
CLIP = ("input_ids", "pixel_values", "attention_mask")


def picture_and_text() -> dict[str, torch.Tensor]:
    """Two texts that end with token 2, two pictures, and the texts' mask."""
    words = torch.randint(3, 50, (2, 8))
    words[:, -1] = 2
    pixels, mask = torch.randn(2, 3, 16, 16), torch.ones(2, 8, dtype=torch.int64)
    return {"input_ids": words, "pixel_values": pixels, "attention_mask": mask}


FAMILIES = (
    Family("Conformer", Conformer, lambda: {"x": torch.randn(2, 16, 12)}, ("x",), attention=True, slow=("dynamo",)),
    Family("Perceiver", Perceiver, lambda: {"x": torch.randn(2, 6, 12)}, ("x",), attention=True, slow=("dynamo",)),
    # arXiv 2103.00020: two towers end in unit vectors whose products are the scores of all pairs
    Family(
        "CLIP",
        tiny(
            "CLIPModel",
            CLIP,
            projection_dim=32,
            text_config={**TOWER, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 2},
            vision_config={**TOWER, "image_size": 16, "patch_size": 8},
        ),
        picture_and_text,
        CLIP,
        attention=True,
    ),
    # arXiv 2006.11477: convolutions over samples, a grouped convolution for positions, attention
    Family(
        "wav2vec2",
        tiny(
            "Wav2Vec2ForCTC",
            ("input_values",),
            vocab_size=20,
            conv_dim=(16, 16),
            conv_kernel=(5, 3),
            conv_stride=(4, 2),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            **TOWER,
        ),
        lambda: {"x": torch.randn(2, 96)},
        ("x",),
        attention=True,
        slow=("dynamo",),
    ),
)
