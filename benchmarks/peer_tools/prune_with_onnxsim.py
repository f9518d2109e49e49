"""onnxsim's structured pruning: whole channels, ranked by weights and activations (Wanda) or by weights alone; then
static quantization where it is asked for.

Settings: sparsity (share of the channels that leave), criterion (wanda, magnitude), int8 (none, onnxsim, ort: whose).
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
import onnxsim
from quantize_with_ort import quantize
from request import Request, asked


def prune(request: Request) -> None:
    """Writes the pruned model. RuntimeError where onnxsim finds nothing to prune."""
    calls = request.calls()
    simple, _ = onnxsim.simplify(onnx.load(request.model))
    share = request.settings["sparsity"]
    if request.settings["criterion"] == "wanda":
        model = onnxsim.apply_structured_wanda_pruning(simple, calls, sparsity=share)
    else:
        model = onnxsim.apply_structured_pruning(simple, sparsity=share)
    if not _weights(model) < _weights(simple):
        raise RuntimeError("onnxsim found nothing to prune")
    if request.settings["int8"] == "onnxsim":
        model = onnxsim.quantize_static(model, calls)
    onnx.save(model, request.out)
    if request.settings["int8"] == "ort":
        with tempfile.TemporaryDirectory() as folder:
            pruned = Path(shutil.move(request.out, Path(folder, "pruned.onnx")))
            quantize(replace(request, model=pruned, settings={"mode": "static"}))


def _weights(model: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


if __name__ == "__main__":
    prune(asked())
