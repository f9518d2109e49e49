"""Trained models: prune 30 % random units of every group, and the oracle holds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from proving import prove, random_keep

from onnxprune import channels, ir
from onnxprune.pipeline import PassContext, PassManager
from onnxprune.stats import Feeds
from passes import canonical

# Groups that must be found at least. None in silero (all of it inside If) and in dtln's recurrent models.
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
    "silero_vad/model": 0,
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


def _feeds(zoo: Path, name: str, model: ir.Model) -> list[dict[str, np.ndarray]]:
    """Two samples of the model's own calibration data; drawn ones where reading it needs more than numpy."""
    spec = importlib.util.spec_from_file_location("zoo", zoo / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(zoo))
    try:
        spec.loader.exec_module(module)
        arrays = module.feeds(name, 2)
    except (ImportError, SystemExit):  # no reader of images, or no feeds of its own
        return list(Feeds.synthetic(model, 2, 0).calls())
    finally:
        sys.path.remove(str(zoo))
    return list(Feeds.from_arrays(arrays, model).calls())


def prove_model(zoo: Path, name: str, granularity: str = "head", seed: int = 0) -> int:
    """Canonicalises, prunes and proves; returns how many groups were pruned."""
    loaded = ir.load(zoo / f"{name}.onnx")
    ir.freeze_initializers(loaded)
    model, _ = PassManager().run(loaded, canonical(), PassContext(verify="none"))
    ir.infer_shapes(model)
    calls = _feeds(zoo, name.split("/")[0], model)
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
