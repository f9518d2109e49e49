"""The zoo of trained models: each in canonical form, and inputs from its own data."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

from onnxprune import ir
from onnxprune.pipeline import PassContext, PassManager
from onnxprune.stats import Feeds
from passes import canonical


def canonical_model(path: Path) -> ir.Model:
    """The model in canonical form, with shapes; weights that are inputs with default values become constants."""
    loaded = ir.load(path)
    ir.freeze_initializers(loaded)
    model, _ = PassManager().run(loaded, canonical(), PassContext(verify="none"))
    ir.infer_shapes(model)
    return model


def calls_of(zoo: Path, name: str, model: ir.Model) -> list[dict[str, np.ndarray]]:
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
