"""The oracle as a pass: changes nothing, raises when the model is not its original with channels removed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from onnxprune import ir
from onnxprune.errors import OnnxpruneError
from onnxprune.pipeline import PassContext, PassResult
from passes.verify_masking.execution import Call
from passes.verify_masking.plan import Removed
from passes.verify_masking.verify import Weights, verify


@dataclass(frozen=True)
class VerifyMasking:
    """Checks a pruned float model against the original that it was pruned from.

    Rewrites: none.
    Requires: inputs, from `calls` or from the context's feeds.
    Guarantees: returns only when both proofs of `verify` hold.
    Options: `original`, the canonical model; `removed`, `dropped`: what left it; `weights`, "final" after compensation;
    `calls`, inputs to use instead of the context's feeds; `max_calls`, how many of them (default 2).
    References: docs/oracle.md.

    `run` raises OnnxpruneError, naming the first tensor that differs.
    """

    name: ClassVar[str] = "verify-masking"
    promise: ClassVar[Literal["exact", "tolerance", "lossy"]] = "exact"

    original: ir.Model
    removed: Removed = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    weights: Weights = "original"
    calls: tuple[Call, ...] = ()
    max_calls: int = 2

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        feeds: Any = self.calls or ctx.feeds or ()
        verdict = verify(
            self.original,
            model,
            self.removed,
            feeds,
            dropped=self.dropped,
            weights=self.weights,
            max_calls=self.max_calls,
            seed=ctx.seed,
        )
        if not verdict.ok:
            raise OnnxpruneError(f"the pruned model is wrong at {verdict.where or 'its weights'}: {verdict.reason}")
        return PassResult(modified=False)
