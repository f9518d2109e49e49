"""Trains the three models of this folder on scikit-learn's digits and exports them, with their data.

Run as `python models/make_models.py [OUT]` in an environment with the `recipes` extra. Seeded and single-threaded, so
that one machine writes the same files again.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from networks import DigitsMLP, DigitsResNet, DigitsViT
from sklearn.datasets import load_digits
from torch import Tensor, nn

SEED = 20240501
TRAINING_SAMPLES, CALIBRATION_SAMPLES = 1197, 512
LARGEST_SHIFT = 2
INPUT, OUTPUT = "image", "logits"


class Data(NamedTuple):
    """Images (n, 1, 32, 32) in 0..1, enlarged fourfold from 8 x 8, and their labels."""

    train_x: Tensor
    train_y: Tensor
    eval_x: Tensor
    eval_y: Tensor


class Recipe(NamedTuple):
    """One model and how it is trained."""

    name: str
    network: type[nn.Module]
    epochs: int
    batch: int
    rate: float
    exporters: tuple[str, ...]


RECIPES = (
    Recipe("digits_resnet", DigitsResNet, 10, 64, 4e-3, ("torchscript", "dynamo")),
    Recipe("digits_vit", DigitsViT, 24, 32, 2e-3, ("dynamo",)),
    Recipe("digits_mlp", DigitsMLP, 40, 32, 2e-3, ("torchscript",)),
)


def load() -> Data:
    """Returns the digits, split once and for all."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = np.kron(digits.images[order] / 16.0, np.ones((1, 4, 4))).astype(np.float32)[:, None]
    x, y = torch.from_numpy(images), torch.from_numpy(digits.target[order].astype(np.int64))
    n = TRAINING_SAMPLES
    return Data(x[:n], y[:n], x[n:], y[n:])


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the images of a batch, all moved by the same few pixels."""
    down, right = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT + 1, (2,), generator=generator).tolist()
    return torch.roll(x, (down, right), (2, 3))


def train(recipe: Recipe, data: Data) -> nn.Module:
    """Trains with AdamW, a one-cycle rate and label smoothing; returns the model for inference."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = recipe.network()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    steps = -(-len(data.train_x) // recipe.batch) * recipe.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(data.train_x), generator=generator).split(recipe.batch):
            optimizer.zero_grad()
            loss_of(model(shifted(data.train_x[batch], generator)), data.train_y[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: nn.Module, exporter: str, path: Path) -> None:
    """Writes the model with a dynamic batch. BatchNormalization stays in the graph: folding it is a compiler's work."""
    sample = torch.zeros(2, 1, 32, 32)
    if exporter == "dynamo":
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(
            model, (sample,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_shapes={"image": {0: batch}}, opset_version=18, verbose=False,
        )  # fmt: skip
        assert program is not None
        proto = program.model_proto
        for node in proto.graph.node:  # stack traces, which hold the paths of whoever exports
            del node.metadata_props[:]
        onnx.save(proto, path)
        return
    torch.onnx.export(
        model, (sample,), str(path), dynamo=False, input_names=[INPUT], output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}, opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )  # fmt: skip


def accuracy(path: Path, data: Data) -> float:
    """Returns the top-1 accuracy of an ONNX file on the evaluation images, in percent."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run([OUTPUT], {INPUT: data.eval_x.numpy()})[0])
    return 100.0 * float(np.mean(logits.argmax(1) == data.eval_y.numpy()))


def main() -> None:
    """Writes every model and the data into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.simplefilter("ignore", DeprecationWarning)
    data = load()
    np.savez_compressed(out / "digits_calib.npz", image=data.train_x[:CALIBRATION_SAMPLES].numpy())
    np.savez_compressed(out / "digits_eval.npz", image=data.eval_x.numpy(), label=data.eval_y.numpy())
    for recipe in RECIPES:
        start = time.monotonic()
        model = train(recipe, data)
        seconds = time.monotonic() - start
        for exporter in recipe.exporters:
            suffix = "_dynamo" if exporter == "dynamo" and len(recipe.exporters) > 1 else ""
            path = out / f"{recipe.name}{suffix}.onnx"
            export(model, exporter, path)
            score, size = accuracy(path, data), path.stat().st_size
            print(f"{path.name}: {score:.2f} % of {len(data.eval_y)} digits, {size} bytes, {seconds:.0f} s of training")


if __name__ == "__main__":
    main()
