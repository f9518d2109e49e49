"""NNCF's post-training quantization of ONNX models. Settings: preset (mixed, performance), transformer."""

from __future__ import annotations

import nncf
import onnx
from request import Request, asked

PRESETS = {"mixed": nncf.QuantizationPreset.MIXED, "performance": nncf.QuantizationPreset.PERFORMANCE}


def quantize(request: Request) -> None:
    """Writes the quantized model."""
    kind = nncf.ModelType.TRANSFORMER if request.settings.get("transformer") else None
    calls = request.calls()
    model = nncf.quantize(
        onnx.load(request.model),
        nncf.Dataset(calls),
        preset=PRESETS[request.settings["preset"]],
        subset_size=len(calls),
        model_type=kind,
    )
    onnx.save(model, request.out)


if __name__ == "__main__":
    quantize(asked())
