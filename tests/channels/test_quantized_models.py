"""Models that ONNX Runtime's quantizers wrote: the groups of the float model, and pruning that equals masking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import onnxprune
from onnxprune import channels, ir
from onnxprune.ir.stored import StoredTensor
from onnxprune.stats import Feeds
from passes.quantization.qdq import quiet
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify


class Reader(CalibrationDataReader):
    def __init__(self, arrays: dict[str, np.ndarray], count: int = 4) -> None:
        self._calls = iter([{name: array[k : k + 1] for name, array in arrays.items()} for k in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._calls, None)


def quantized(source: onnx.ModelProto, folder: Path, form: str, arrays: dict[str, np.ndarray]) -> Path:
    """The model as one of ONNX Runtime's quantizers writes it. Forms: qdq, qoperator, dynamic; "-tensor": one scale a
    weight; "-stored": weights in float with a QuantizeLinear of their own.
    """
    onnx.save(source, folder / "float.onnx")
    given, out = str(folder / "float.onnx"), folder / f"{form}.onnx"
    with quiet():
        if form == "dynamic":
            quantize_dynamic(given, out, weight_type=QuantType.QInt8)
            return out
        options = {"AddQDQPairToWeight": form.endswith("-stored")}
        kind = QuantFormat.QOperator if form.startswith("qoperator") else QuantFormat.QDQ
        per_channel = not form.endswith("-tensor")
        quantize_static(given, out, Reader(arrays), kind, per_channel=per_channel, extra_options=options)
    return out


def stored_bytes(model: ir.Model) -> int:
    held = (tensor._values for tensor in ir.initializers(model).values())
    return sum(value.stored_bytes if isinstance(value, StoredTensor) else value.nbytes for value in held)


def canonical(source: Path | onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(onnxprune.canonicalize(source))
    ir.infer_shapes(model)
    return model


def thirty_percent(graph: channels.ChannelGraph) -> dict[str, np.ndarray]:
    rng, keep = np.random.default_rng(0), {}
    for group in graph.groups:
        keep[group.name] = np.ones(group.width, bool)
        keep[group.name][rng.choice(group.width, max(1, round(0.3 * group.width)), replace=False)] = False
    return keep


def prove(plain: ir.Model, path: Path, feeds: dict[str, np.ndarray]) -> None:
    """The same groups as the float model has, no larger initializers, and the oracle after 30 % everywhere."""
    model = canonical(path)
    graph = channels.analyze(model)
    expected = channels.analyze(plain).groups
    assert sorted((g.kind, g.width) for g in graph.groups) == sorted((g.kind, g.width) for g in expected)
    assert stored_bytes(model) <= stored_bytes(ir.load(path)) + 64
    keep = thirty_percent(graph)
    pruned = model.copy()
    prune(pruned, graph, keep)
    verdict = verify(model, pruned, graph.removals(keep), [feeds])
    assert verdict.ok, verdict
    assert stored_bytes(pruned) < stored_bytes(model)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("digits_mlp", form) for form in ("qdq", "qdq-tensor", "qdq-stored", "qoperator", "dynamic")),
        *(("digits_resnet", form) for form in ("qdq", "qoperator-tensor", "dynamic")),
        ("digits_vit", "qdq-tensor"),
    ],
)
def test_small_models(models: Path, tmp_path: Path, name: str, form: str) -> None:
    arrays = dict(np.load(models / "digits_calib.npz"))
    source = onnxprune.canonicalize(models / f"{name}.onnx")
    path = quantized(source, tmp_path, form, arrays)
    prove(canonical(source), path, {"image": arrays["image"][:4]})


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("kws_dscnn_tiny", "qoperator"),
        ("minilm_l6", "dynamic"),
        ("mobilenetv1_025_128", "qdq"),
        ("resnet20", "qdq-tensor"),
        ("resnet8_keras", "qdq"),
        ("resnet8_keras", "dynamic"),
    ],
)
def test_trained_models(zoo: Path, tmp_path: Path, name: str, form: str) -> None:
    plain = ir.load(zoo / name / "model.onnx")
    ir.freeze_initializers(plain)
    source = onnxprune.canonicalize(plain)
    plain = canonical(source)
    shapes = {t.name: [2, 8] for t in ir.feed_inputs(plain) if len(t.shape) == 2}
    feeds = Feeds.synthetic(plain, 4, 0, shapes)
    prove(plain, quantized(source, tmp_path, form, dict(feeds.arrays)), next(iter(feeds.calls(2))))
