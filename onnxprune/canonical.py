"""The canonical form of a model: what every analysis starts from, and what pruning nothing writes."""

from __future__ import annotations

import os

import onnx

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir.functions import check_functions
from onnxprune.pipeline import PassContext, PassManager, PassRecord
from onnxprune.verification import invalid
from passes import canonical


def canonicalize(
    source: onnx.ModelProto | str | os.PathLike[str] | ir.Model, *, keep_batchnorm: bool = False
) -> onnx.ModelProto:
    """Return the model with constants folded, shapes resolved, functions inlined, no-ops removed, BatchNorm fused.

    Inputs and outputs keep names, order, types and dims; opsets are not lowered; metadata stays; ``source`` is not
    changed. ``keep_batchnorm`` leaves BatchNormalization, and constants that stand for one, unfused. Everything runs in
    this process; for models of unknown origin call :func:`onnxprune.ir.validate` first, which runs them in a sandbox.

    Raises ModelError when the model is malformed, LimitError when its functions expand without bound, UsageError when
    there is no such file.
    """
    if isinstance(source, ir.Model):
        model = source
    else:
        model = ir.from_proto(source) if isinstance(source, onnx.ModelProto) else ir.load(source)
    check_functions(model.header, (node.op for node in model.graph.nodes))
    reason = invalid(model)
    if reason:
        raise ModelError(f"the model is not valid: {reason}")
    result, _ = canonicalize_model(model, keep_batchnorm=keep_batchnorm)
    return ir.to_proto(result)


def canonicalize_model(
    model: ir.Model, ctx: PassContext | None = None, *, keep_batchnorm: bool = False
) -> tuple[ir.Model, list[PassRecord]]:
    """Return the canonical form of ``model`` and what each pass did.

    The result is always checked for validity and an unchanged signature; its outputs are compared with the original's
    when ``ctx.feeds`` is given (once, after the whole pipeline, unless ``ctx.verify`` says otherwise).
    """
    return PassManager().run(model, canonical(keep_batchnorm), ctx or PassContext())
