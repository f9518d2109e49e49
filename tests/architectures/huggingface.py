"""Models of `transformers` as plain modules: tensors in, one tensor or a tuple of tensors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import nn

TINY: Mapping[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}


class Forward(nn.Module):
    """Calls a model with its inputs by name, and returns what `pick` takes from the result."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], pick: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self.names, self.pick = model, names, pick

    def forward(self, a: torch.Tensor, b: torch.Tensor | None = None, c: torch.Tensor | None = None) -> Any:
        inputs = dict(zip(self.names, (a, b, c), strict=False))
        return self.pick(self.model(**inputs, **self.options()))

    def options(self) -> dict[str, Any]:
        """Results are plain tuples, and a model that could keep a cache keeps none."""
        caching = hasattr(self.model.config, "use_cache")
        return {"return_dict": False, **({"use_cache": False} if caching else {})}


def first(result: Any) -> Any:
    """The main output."""
    return result[0]


def tiny(
    model: str, names: tuple[str, ...] = ("input_ids",), pick: Callable[[Any], Any] = first, **settings: Any
) -> Callable[[], nn.Module]:
    """Builds `transformers`' class of this name from its configuration class and `settings`.

    Weights are drawn to keep the size of what they multiply: with those of `transformers` (a standard deviation of
    0.02) attention would hardly look at anything, and branches hardly change their sums.
    """

    def build() -> nn.Module:
        kind = getattr(transformers, model)
        module = kind(kind.config_class(**{"attn_implementation": "eager", **settings}))
        with torch.no_grad():
            for weight in module.parameters():
                if weight.ndim > 1:
                    weight.normal_(0, weight[0].numel() ** -0.5)
        return Forward(module, names, pick)

    return build
