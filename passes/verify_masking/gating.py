"""All gates of a node, from the tables of the operator families."""

from __future__ import annotations

import onnx

from passes.verify_masking import contractions, fused, integer
from passes.verify_masking.contractions import Gate
from passes.verify_masking.editor import Editor

_OTHERS = {**integer.CONTRACTING, **fused.CONTRACTING}


def gates(node: onnx.NodeProto, editor: Editor) -> list[Gate]:
    """The gates of one node; empty where it contracts nothing that was removed."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule = contractions.CONTRACTING.get(node.op_type) if not domain else None
    rule = rule or _OTHERS.get((domain, node.op_type))
    return [] if rule is None else rule(node, editor)
