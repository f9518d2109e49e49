"""A family of networks: how to build a small member with random weights, and how to export it with either exporter."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import nn

Exporter = Literal["torchscript", "dynamo"]
EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")
OPSETS: Mapping[Exporter, int] = {"torchscript": 17, "dynamo": 18}


@dataclass(frozen=True)
class Family:
    """One architecture.

    build: makes the module; weights are drawn afterwards. inputs: example tensors by input name, in the order of
    `forward`. batch: the inputs whose axis 0 is the dynamic batch; none of them where the batch is fixed. maps: the
    inputs that are images of any size as TorchScript writes them, axes 2 and 3. share: the least share of MACs that
    must be prunable. why: where it is under 0.9, what keeps the rest. attention: whether it has heads; then head
    dimensions are pruned as well, in the graph of the first exporter. slow: the exporters whose graphs are left to
    the slow suite, for relatives of families that have both.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, torch.Tensor]]
    batch: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    share: float = 0.9
    why: str = ""
    attention: bool = False
    exporters: tuple[Exporter, ...] = EXPORTERS
    slow: tuple[Exporter, ...] = ()
    opsets: Mapping[Exporter, int] = field(default_factory=lambda: OPSETS)


def images(*shape: int) -> Callable[[], dict[str, torch.Tensor]]:
    """One input `x` of this shape, drawn."""
    return lambda: {"x": torch.randn(shape)}


def tokens(batch: int, length: int, vocabulary: int) -> Callable[[], dict[str, torch.Tensor]]:
    """Token numbers and a mask that hides the end of the last sample."""

    def make() -> dict[str, torch.Tensor]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[-1, -2:] = 0
        return {"input_ids": torch.randint(0, vocabulary, (batch, length)), "attention_mask": mask}

    return make


def member(family: Family) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The module in evaluation mode with drawn statistics and biases, and its inputs; always the same ones."""
    torch.manual_seed(0)
    module = family.build().eval()
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("weight") and tensor.ndim == 1:  # of a normalisation or a PReLU: all alike when made
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.2)
            elif name.endswith("weight") and tensor.ndim == 1:  # of a normalisation or a PReLU: all alike when made
                tensor.uniform_(0.5, 1.5)
    return module, family.inputs()


def export(family: Family, exporter: Exporter) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model that an exporter writes, and inputs for it."""
    module, inputs = member(family)
    write = _dynamo if exporter == "dynamo" else _torchscript
    with quiet(), torch.no_grad():
        proto = write(family, module, inputs)
    read = {tensor.name for tensor in proto.graph.input}
    return proto, {name: value.numpy() for name, value in inputs.items() if name in read}


def _torchscript(family: Family, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention at inference has no ONNX form
    axes = {name: {0: "batch"} for name in family.batch}
    for name in family.maps:
        axes[name] = {**axes.get(name, {}), 2: "height", 3: "width"}
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        buffer,
        dynamo=False,
        opset_version=family.opsets["torchscript"],
        input_names=list(inputs),
        dynamic_axes=axes,
    )
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(family: Family, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=64)
    dynamic: Any = tuple({0: batch} if name in family.batch else {} for name in inputs) if family.batch else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=True,
            opset_version=family.opsets["dynamo"],
            input_names=list(inputs),
            dynamic_shapes=dynamic,
            external_data=False,
            verbose=False,
        )
        return onnx.load(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn and log about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        yield
        logging.disable(logging.NOTSET)
