"""Trained models: prune 30 % random units of every group, and the oracle holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from proving import prove, random_keep
from zoo_models import calls_of, canonical_model

from onnxprune import channels

# Groups that must be found at least. None in dtln's recurrent models.
FAST = {
    "ad01_toycar_ae/model": 9,
    "fastestdet_coco/model": 30,
    "kws_dscnn_tiny/model": 5,
    "magika_v3_3/model": 1,
    "mnist_cntk/model": 2,
    "mobilenetv1_025_128/model": 14,
    "ppocr_cls_v2/model": 20,
    "resnet20/model": 12,
    "resnet20/model_dynamo": 12,
    "resnet56/model": 30,
    "resnet8_keras/model": 6,
    "silero_vad/model": 8,
    "sinet_portrait/model": 15,
    "squeezenet11/model": 20,
    "ultraface_rfb320/model": 20,
    "unet_sed/model": 10,
}
LONG = {
    "dtln_denoise/model_1": 0,
    "dtln_denoise/model_2": 0,
    "espcn_superres/model": 3,
    "minilm_l6/model": 12,
    "resnet56/model_dynamo": 30,
    "skl_mlp_digits/model": 0,
}


def prove_model(zoo: Path, name: str, granularity: str = "head", seed: int = 0) -> int:
    """Canonicalises, prunes and proves; returns how many groups were pruned."""
    model = canonical_model(zoo / f"{name}.onnx")
    calls = calls_of(zoo, name.split("/")[0], model)
    graph = channels.analyze(model, granularity=granularity)
    rng = np.random.default_rng(seed)
    keep = {g.name: mask for g in graph.groups if (mask := random_keep(g, rng, 0.3)) is not None}
    verdict = prove(model, graph, keep, calls, float64=False)
    assert verdict.ok, verdict
    return len(keep)


@pytest.mark.zoo
@pytest.mark.parametrize("name", FAST)
def test_random_units_of_every_group(zoo: Path, name: str) -> None:
    assert prove_model(zoo, name) >= FAST[name]


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["head", "head_dim"])
@pytest.mark.parametrize("name", LONG | FAST)
def test_random_units_of_every_group_again(zoo: Path, name: str, granularity: str) -> None:
    assert prove_model(zoo, name, granularity, seed=1) >= (LONG | FAST)[name]
