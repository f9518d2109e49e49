"""Families in the idioms of other converters than PyTorch's: found, pruned by 30 % everywhere, and proved."""

from __future__ import annotations

import pytest
from examine import examine
from families_foreign import FAMILIES
from foreign import Foreign


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_prune_thirty_percent_of_everything(family: Foreign) -> None:
    found = examine(*family.build())
    assert not found.failure and found.moved, found
    assert found.params[1] == found.params[2] < found.params[0]
    assert found.macs_share >= family.share, found


def test_every_family_says_what_keeps_the_rest() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(family.share >= 0.9 or family.why for family in FAMILIES)
