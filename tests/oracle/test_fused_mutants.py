"""Broken rules of fused operators must be noticed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fused_steps import MICROSOFT, random_fused_model
from graph_builder import SeededChooser
from proving import expect_notice

from onnxprune.channels import links, registry
from onnxprune.channels.rules import heads
from passes.verify_masking import fused

Change = Callable[[links.Link], Iterator[links.Link]]


def _rolled(link: links.Link) -> Iterator[links.Link]:
    if isinstance(link, links.Tie) and link.index is not None and len(set(link.index.tolist())) > 1:
        link = links.Tie(link.a, link.b, np.roll(link.index, 1))
    yield link


def _without_index(link: links.Link) -> Iterator[links.Link]:
    """Both elements of a rotary pair may leave alone."""
    if not isinstance(link, links.Tie) or link.index is None:
        yield link


def _change_rule(monkeypatch: pytest.MonkeyPatch, op: str, change: Change) -> None:
    def broken(rule: Any) -> Any:
        return lambda node, opset: (new for link in rule(node, opset) for new in change(link))

    entries = registry._RULES[MICROSOFT, op]
    monkeypatch.setitem(registry._RULES, (MICROSOFT, op), [e._replace(rule=broken(e.rule)) for e in entries])


def _expect_notice(op: str) -> None:
    expect_notice(op, lambda seed: random_fused_model(SeededChooser(seed)))


@pytest.mark.parametrize("op", ["Attention", "MultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding"])
def test_runs_and_pairs_at_the_wrong_place(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    _change_rule(monkeypatch, op, _rolled)
    _expect_notice(op)


def test_tables_that_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    _change_rule(monkeypatch, "RotaryEmbedding", _without_index)
    _expect_notice("RotaryEmbedding")


def test_scale_that_follows_the_head_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an explicit scale, the pruned operator divides by the root of the new head dimension."""
    monkeypatch.setattr(heads, "keep_scale", lambda *_, **__: None)
    _expect_notice("MultiHeadAttention")


def test_query_heads_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query heads of a group lie side by side, not apart."""
    grouped = importlib.import_module("onnxprune.channels.rules.contrib_grouped")
    apart = (heads.REPEATS, heads.KV_HEADS, heads.HEAD_DIM)
    monkeypatch.setattr(grouped, "QUERY", apart)
    monkeypatch.setattr(grouped, "_OUTPUT", apart)
    _expect_notice("GroupQueryAttention")


@pytest.mark.parametrize("op", ["Attention", "MultiHeadAttention"])
def test_an_oracle_without_the_gate_is_too_strict(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """A gap in the oracle's table never passes anything: scores that still see removed head dimensions differ."""
    monkeypatch.delitem(fused.CONTRACTING, (MICROSOFT, op))
    gating = importlib.import_module("passes.verify_masking.gating")
    monkeypatch.delitem(gating._OTHERS, (MICROSOFT, op))
    _expect_notice(op)
