"""Every family of networks, as either exporter of PyTorch writes it: found, pruned by 30 % everywhere, and proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
from all_families import FAMILIES
from examine import Examination, examine
from family import Exporter, Family, export
from proving import prove_groups

from onnxprune import canonicalize

pytestmark = pytest.mark.torch
CASES = [
    pytest.param(f, e, id=f"{f.name}-{e}", marks=[pytest.mark.slow] if e in f.slow else [])
    for f in FAMILIES
    for e in f.exporters
]

SINGLY = [
    pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.attention else [])
    for f in FAMILIES
    if "torchscript" in f.exporters
]


def assert_holds(family: Family, found: Examination) -> None:
    """The oracle holds, parameters fall as predicted, and what is prunable is at least what the family promises."""
    assert not found.failure and found.moved, found
    assert found.params[1] == found.params[2] < found.params[0]
    assert found.macs_share >= family.share, found


@pytest.mark.parametrize(("family", "exporter"), CASES)
def test_prune_thirty_percent_of_everything(family: Family, exporter: Exporter) -> None:
    proto, feeds = export(family, exporter)
    assert_holds(family, examine(proto, feeds))
    if family.attention and exporter == family.exporters[0]:
        assert_holds(family, examine(proto, feeds, granularity="head_dim"))


@pytest.mark.parametrize("family", SINGLY)
def test_groups_alone_with_a_fixed_batch(family: Family) -> None:
    """Sizes that are known everywhere, a random granularity, and groups that leave their neighbours whole."""
    proto, feeds = export(replace(family, batch=()), "torchscript")
    outcome = prove_groups(canonicalize(proto), [feeds], np.random.default_rng(0), most=2)
    assert outcome.failure is None, (outcome.keep, outcome.failure)
    assert outcome.checked > 1


@pytest.mark.parametrize("name", ["diffusion U-Net", "DeepLab v3+", "HRNet", "RetinaNet", "style transfer", "U-Net"])
def test_images_of_any_size(name: str) -> None:
    """Sizes that are computed from the image's at run time freeze no channel."""
    family = next(family for family in FAMILIES if family.name == name)
    assert_holds(family, examine(*export(replace(family, maps=("x",)), "torchscript")))


def test_every_family_says_what_keeps_the_rest() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(family.share >= 0.9 or family.why for family in FAMILIES)
