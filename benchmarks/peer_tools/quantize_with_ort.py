"""ONNX Runtime's own quantization, as its documentation says to use it: pre-processed, u8 activations and s8 weights
per channel in QDQ form with min-max ranges; or dynamic, which needs no data.

Settings: mode (static, dynamic), reduce_range (7-bit weights, which the documentation advises on x86 without VNNI).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from request import Call, Request, asked


class Reader(CalibrationDataReader):
    """Gives the calls one after another."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = iter(calls)

    def get_next(self) -> Call | None:
        return next(self.calls, None)


def quantize(request: Request) -> None:
    """Writes the quantized model."""
    narrow = bool(request.settings.get("reduce_range"))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        try:
            quant_pre_process(request.model, prepared)
        except Exception as error:  # symbolic shape inference fails on some graphs; without it the tool still works
            print(f"pre-processing without symbolic shapes: {error}")
            quant_pre_process(request.model, prepared, skip_symbolic_shape=True)
        if request.settings["mode"] == "dynamic":
            quantize_dynamic(prepared, request.out, per_channel=True, reduce_range=narrow)
            return
        quantize_static(
            prepared,
            request.out,
            Reader(request.calls()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=narrow,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


if __name__ == "__main__":
    quantize(asked())
