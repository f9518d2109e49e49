"""Raises a model's opset to what 8-bit operators need."""

from __future__ import annotations

import onnx
import onnx.checker
import onnx.version_converter

from onnxprune import ir
from onnxprune.errors import ModelError

NEEDED = 13
"""First opset whose DequantizeLinear has an axis (a scale a channel); ONNX Runtime writes invalid models below it."""

_IR_OF_NEEDED = 7


def raised(model: ir.Model, opset: int = NEEDED) -> ir.Model:
    """The model itself when its default opset is at least `opset`, otherwise a converted copy.

    Raises ModelError, one line, where the conversion fails.
    """
    if model.opset() >= opset:
        return model
    proto = ir.to_proto(model)
    proto.ir_version = max(proto.ir_version, _IR_OF_NEEDED)
    try:
        converted = onnx.version_converter.convert_version(proto, opset)
        onnx.checker.check_model(converted)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"opset {model.opset()} cannot be raised to {opset}: {reason}") from None
    return ir.from_proto(_restored(proto, converted))


def _restored(proto: onnx.ModelProto, converted: onnx.ModelProto) -> onnx.ModelProto:
    """The converter keeps the graph and drops what surrounds it: take everything else from the original."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    result.graph.CopyFrom(converted.graph)
    result.graph.name, result.graph.doc_string = proto.graph.name, proto.graph.doc_string
    del result.opset_import[:]
    others = [entry for entry in proto.opset_import if entry.domain not in ("", "ai.onnx")]
    raised_default = [entry for entry in converted.opset_import if entry.domain in ("", "ai.onnx")]
    result.opset_import.extend(raised_default + others)
    return result
