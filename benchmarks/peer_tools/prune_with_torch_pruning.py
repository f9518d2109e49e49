"""Torch-Pruning, with its own criteria, on the CIFAR networks in PyTorch, exported to ONNX again.

Only the channels inside of blocks leave: its dependency graph does not follow a shortcut that is padded with zeros, and
it ends with an IndexError where the channels between blocks may leave too.

Settings: ratio (share of the channels that leave), criterion (a key of CRITERIA), global_pruning (one ranking for all
layers), int8 (then ONNX Runtime's static quantization).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import cifar_resnet
import onnx
import torch
import torch_pruning as tp
from quantize_with_ort import quantize
from request import Request, asked

CRITERIA = {
    "group L2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "BN scale": lambda: tp.importance.BNScaleImportance(),
    "FPGM": lambda: tp.importance.FPGMImportance(),
    "LAMP": lambda: tp.importance.LAMPImportance(),
}
MOST_OF_A_LAYER = 0.9


def prune(request: Request) -> None:
    """Writes the pruned model."""
    model = cifar_resnet.load(request.model)
    example = torch.from_numpy(next(iter(request.calls()[0].values())))
    whole = model(example).detach()
    inside = [module.conv1 for module in model.modules() if isinstance(module, cifar_resnet.Block)]
    others = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) and m not in inside]
    pruner = tp.pruner.MetaPruner(
        model,
        example,
        importance=CRITERIA[request.settings["criterion"]](),
        pruning_ratio=request.settings["ratio"],
        global_pruning=request.settings["global_pruning"],
        max_pruning_ratio=MOST_OF_A_LAYER,
        ignored_layers=others,
    )
    pruner.step()
    if torch.equal(model(example), whole):
        raise RuntimeError("Torch-Pruning removed nothing")
    export(model, example, request)


def export(model: torch.nn.Module, example: torch.Tensor, request: Request) -> None:
    """Writes the network as ONNX, in 8 bits where that is asked for."""
    names = [value.name for value in onnx.load(request.model).graph.input]
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "pruned.onnx") if request.settings["int8"] else request.out
        axes = {names[0]: {0: "batch"}}
        with torch.no_grad():
            torch.onnx.export(
                model, (example,), str(plain), dynamo=False, input_names=names, dynamic_axes=axes, opset_version=17
            )
        if request.settings["int8"]:
            quantize(replace(request, model=plain, settings={"mode": "static"}))


if __name__ == "__main__":
    prune(asked())
