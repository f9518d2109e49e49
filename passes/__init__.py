"""The passes: canonicalisation, structured pruning and its oracle, block removal, quantization. One file a pass."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.pipeline import Pass

PASSES: dict[str, str] = {
    "inline-functions": "passes.inline_functions:InlineFunctions",
    "inline-constant-if": "passes.inline_constant_if:InlineConstantIf",
    "sink-initializers": "passes.sink_initializers:SinkInitializers",
    "constant-folding": "passes.constant_folding:ConstantFolding",
    "resolve-shapes": "passes.resolve_shapes:ResolveShapes",
    "eliminate-identities": "passes.eliminate_identities:EliminateIdentities",
    "zero-states": "passes.zero_states:ZeroStates",
    "block-scales": "passes.block_scales:BlockScales",
    "split-axes": "passes.split_axes:SplitAxes",
    "normalize-ops": "passes.normalize_ops:NormalizeOps",
    "fuse-batchnorm": "passes.fuse_batchnorm:FuseBatchnorm",
    "separate-vectors": "passes.separate_vectors:SeparateVectors",
    "deduplicate-initializers": "passes.deduplicate_initializers:DeduplicateInitializers",
    "flush-denormals": "passes.flush_denormals:FlushDenormals",
    "dead-code": "passes.dead_code:DeadCode",
    "record-shapes": "passes.record_shapes:RecordShapes",
    "sums-before-norms": "passes.sums_before_norms:SumsBeforeNorms",
    "drop-branches": "passes.block_removal.removal:BlockRemoval",
    "prune": "passes.structured_pruning.structured:StructuredPruning",
    "quantize-static": "passes.quantization:QuantizeStatic",
    "quantize-dynamic": "passes.quantization:QuantizeDynamic",
    "to-float16": "passes.quantization:ToFloat16",
}
"""Name on the command line -> ``module:class``. Nothing is imported until a pass is asked for."""


def build(name: str) -> Pass:
    """Return the built-in pass ``name`` with its default options."""
    module, _, attribute = PASSES[name].partition(":")
    made: Pass = getattr(import_module(module), attribute)()
    return made


def canonical(keep_batchnorm: bool = False) -> list[Pass]:
    """Return the passes that bring equivalent spellings of a model to one form, in order.

    Some run twice: known sizes reveal constant conditions, constant targets reveal no-ops, and no-ops removed reveal
    constants.
    """
    names = ["inline-functions", "constant-folding", "inline-constant-if", "sink-initializers", "resolve-shapes"]
    names += ["constant-folding", "inline-constant-if", "sink-initializers", "eliminate-identities", "zero-states"]
    names += ["block-scales", "dead-code", "split-axes", "normalize-ops"]
    if not keep_batchnorm:
        names.append("fuse-batchnorm")
    names += ["resolve-shapes", "constant-folding", "eliminate-identities"]
    names += ["flush-denormals", "separate-vectors", "deduplicate-initializers", "dead-code"]
    names += ["record-shapes"]
    return [build(name) for name in names]
