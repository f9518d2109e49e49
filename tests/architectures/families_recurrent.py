"""Networks with recurrent layers: taggers, attention between two, classifiers of the last state, text lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from family import Family, images
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


class LastState(nn.Module):
    """A classifier on the last states of both directions."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.project = nn.Linear(6, 12)
        self.body = getattr(nn, cell)(12, 16, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, state = self.body(torch.tanh(self.project(x)))
        hidden = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([hidden[0], hidden[1]], -1))


class CRNN(nn.Module):
    """arXiv 1507.05717: convolutions make a sequence of columns, two BiLSTM layers read it."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d((4, 1)),
        )  # fmt: skip
        self.body = nn.LSTM(12, 10, 2, bidirectional=True)
        self.head = nn.Linear(20, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.body(self.columns(x).squeeze(2).permute(2, 0, 1))
        return self.head(y).log_softmax(-1)


def tagger(kind: type[nn.RNNBase], layers: int = 1, both: bool = False) -> Callable[[], nn.Module]:
    return lambda: Tagger(kind, layers, both)


def ids(*names: str) -> Callable[[], dict[str, torch.Tensor]]:
    """Token numbers of eight steps by input name."""
    return lambda: {name: torch.randint(0, 50, (2, 8)) for name in names}


FAMILIES = (
    Family("LSTM tagger", tagger(nn.LSTM), ids("tokens"), ("tokens",)),
    Family("GRU tagger", tagger(nn.GRU), ids("tokens"), ("tokens",)),
    Family("BiLSTM tagger", tagger(nn.LSTM, 2, True), ids("tokens"), ("tokens",)),
    Family("Elman tagger", tagger(nn.RNN), ids("tokens"), ("tokens",), slow=("dynamo",)),
    Family("LSTM with attention", Attentive, ids("source", "target"), ("source", "target"), slow=("dynamo",)),
    Family("LSTM classifier", partial(LastState, "LSTM"), images(2, 7, 6), ("x",)),
    Family("GRU classifier", partial(LastState, "GRU"), images(2, 7, 6), ("x",)),
    Family("CRNN", CRNN, images(1, 1, 8, 16)),
)
