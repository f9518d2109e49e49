"""What a model says about itself: versions, opsets, metadata, functions."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnxprune.errors import ModelError

FIRST_IR_WITH_OPTIONAL_INPUTS = 4
_STANDARD = ("", "ai.onnx")


def check_header(proto: onnx.ModelProto) -> None:
    """Raises ModelError for a model without graph or opset, or with one newer than the installed onnx knows, or with
    two versions of one domain. skl2onnx names a domain twice with the same version: that says nothing new.
    """
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError("this is not an ONNX model: it has no graph or no IR version")
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(f"IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the last one known here")
    if not proto.opset_import:
        raise ModelError("the model imports no opset; export it again with a current exporter")
    versions: dict[str, int] = {}
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        domain = "" if entry.domain in _STANDARD else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ModelError(f"the model imports two opsets of domain {domain or 'ai.onnx'!r}")
        if entry.version < 1 or (not domain and entry.version > newest):
            raise ModelError(
                f"opset {entry.version} of {domain or 'ai.onnx'} is unknown here (1 to {newest} are known)"
            )


def copy_header(proto: onnx.ModelProto, known: Collection[str]) -> onnx.ModelProto:
    """The ModelProto without nodes, initializers, signature, and the value_info of `known` tensors."""
    header = onnx.ModelProto()
    copy_fields(proto, header, skip=("graph", "opset_import"))
    header.opset_import.extend({entry.domain: entry for entry in proto.opset_import}.values())
    header.ir_version = max(header.ir_version, FIRST_IR_WITH_OPTIONAL_INPUTS)
    header.graph.SetInParent()
    moved = ("node", "initializer", "sparse_initializer", "input", "output", "value_info")
    copy_fields(proto.graph, header.graph, skip=moved)
    header.graph.value_info.extend(info for info in proto.graph.value_info if info.name not in known)
    return header


def copy_fields(
    source: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto,
    target: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto,
    skip: Collection[str],
) -> None:
    """Copies every set field but those named; unlike CopyFrom and clearing, it never copies the large ones."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if field.is_repeated:
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
