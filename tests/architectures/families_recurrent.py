"""Taggers: embeddings, a recurrent layer, and a label for every token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from family import Family
from torch import nn


class Tagger(nn.Module):
    """arXiv 1508.01991 without the CRF: the states of all steps, of one or both directions, become labels."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, both: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.states = kind(24, 32, layers, batch_first=True, bidirectional=both)
        self.hidden, self.label = nn.Linear(32 * (1 + both), 32), nn.Linear(32, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.states(self.embed(tokens))
        return self.label(torch.relu(self.hidden(states)))


class Attentive(nn.Module):
    """arXiv 1508.04025: a decoder's states attend to an encoder's by a product with a weight between them."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(50, 24), nn.Embedding(50, 24)
        self.encoder, self.decoder = (nn.LSTM(24, 32, batch_first=True) for _ in range(2))
        self.between, self.mix = nn.Linear(32, 32, bias=False), nn.Linear(64, 32)
        self.label = nn.Linear(32, 50)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, state = self.encoder(self.source(source))
        queries, _ = self.decoder(self.target(target), state)
        weights = torch.softmax(queries @ self.between(memory).transpose(1, 2), -1)
        return self.label(torch.tanh(self.mix(torch.cat([weights @ memory, queries], -1))))


def tagger(kind: type[nn.RNNBase], layers: int = 1, both: bool = False) -> Callable[[], nn.Module]:
    return lambda: Tagger(kind, layers, both)


def ids(*names: str) -> Callable[[], dict[str, torch.Tensor]]:
    """Token numbers of eight steps by input name."""
    return lambda: {name: torch.randint(0, 50, (2, 8)) for name in names}


FAMILIES = (
    Family("LSTM tagger", tagger(nn.LSTM), ids("tokens"), ("tokens",)),
    Family("GRU tagger", tagger(nn.GRU), ids("tokens"), ("tokens",)),
    Family("BiLSTM tagger", tagger(nn.LSTM, 2, True), ids("tokens"), ("tokens",)),
    Family("Elman tagger", tagger(nn.RNN), ids("tokens"), ("tokens",)),
    Family("LSTM with attention", Attentive, ids("source", "target"), ("source", "target")),
)
