"""Heads, key groups, head dimensions and rotary pairs are found in attention as exporters write it; each is proved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attention_forms import (
    APART,
    GATED,
    GROUPED,
    GROUPS,
    HEADS,
    LENGTH,
    ONE_TENSOR,
    ROTARY,
    SIZE,
    WIDTH,
    batch_of_heads,
    linear,
    multi_query,
    rotary_partial,
)
from corner_graphs import builder, check
from graph_builder import Builder, Value

Form = Callable[[Builder, Value], Value]


def widths(form: Form, granularity: str, symbols: tuple[str, ...] = ("N",)) -> list[int]:
    """Widths of the groups of attention, proved together with the projection in front."""
    b = builder(17)
    y = linear(b, form(b, linear(b, b.input(2, LENGTH, 7), WIDTH)), 3)
    found = check(b.finish([y], symbols), granularity=granularity)
    found.remove(WIDTH)
    return found


@pytest.mark.parametrize("form", (*APART, *ONE_TENSOR), ids=lambda form: form.__name__)
def test_heads(form: Form) -> None:
    assert widths(form, "head") == [HEADS]


@pytest.mark.parametrize("form", APART, ids=lambda form: form.__name__)
def test_head_dimensions(form: Form) -> None:
    """Queries with keys, and values on their own."""
    assert widths(form, "head_dim") == [SIZE, SIZE]


@pytest.mark.parametrize("form", ONE_TENSOR, ids=lambda form: form.__name__)
def test_head_dimensions_of_one_tensor(form: Form) -> None:
    """Queries, keys and values are entries of one axis: their head dimensions leave together."""
    assert widths(form, "head_dim") == [SIZE]


def test_heads_beside_the_batch() -> None:
    """An axis of batch x heads holds heads only where the batch is a number; else head dimensions leave."""
    assert widths(batch_of_heads, "head", ()) == [HEADS]
    assert widths(batch_of_heads, "head") == [SIZE, SIZE]
    assert widths(batch_of_heads, "head_dim", ()) == [SIZE, SIZE]


@pytest.mark.parametrize("form", GROUPED, ids=lambda form: form.__name__)
def test_groups_of_heads(form: Form) -> None:
    """A unit is a key head with the query heads that share it."""
    symbols = () if "expand" in form.__name__ else ("N",)
    assert widths(form, "head", symbols) == [GROUPS]
    assert widths(form, "head_dim", symbols) == [SIZE, SIZE]


def test_one_key_head() -> None:
    """Query heads leave one by one."""
    assert widths(multi_query, "head") == [HEADS]
    assert widths(multi_query, "head_dim") == [SIZE, SIZE]


@pytest.mark.parametrize("form", ROTARY, ids=lambda form: form.__name__)
def test_rotary_pairs(form: Form) -> None:
    assert widths(form, "head") == [HEADS]
    assert widths(form, "head_dim") == [SIZE // 2, SIZE]


def test_elements_that_do_not_turn() -> None:
    assert widths(rotary_partial, "head") == [HEADS]
    assert widths(rotary_partial, "head_dim") == [2, 2, SIZE]


@pytest.mark.parametrize("form", GATED, ids=lambda form: form.__name__)
def test_gated_feed_forward(form: Form) -> None:
    assert widths(form, "head") == [12]
