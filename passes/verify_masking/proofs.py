"""The two proofs on given inputs, along one way through the model's Ifs, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from onnxprune.errors import ModelError
from passes.verify_masking.comparison import Difference, Tolerance, first_difference, worst
from passes.verify_masking.editor import Array
from passes.verify_masking.execution import Call, run
from passes.verify_masking.plan import Plan
from passes.verify_masking.subgraphs import Conditions, forced


@dataclass(frozen=True)
class Verdict:
    """The oracle's answer.

    ok: both proofs hold. error: worst difference of an output in units of the tolerance (at most 1 when ok). where: the
    first tensor that differs, or the output, empty when ok. reason: one line, empty when ok. proof: which one decided.
    """

    ok: bool
    error: float
    where: str = ""
    reason: str = ""
    proof: Literal["masking", "non-interference"] = "masking"

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True)
class Proof:
    """The models of both proofs, how to run and compare them.

    `disturbed`: None where nothing can be disturbed. `limit`: of `execute`'s outputs; `tolerance`: of float32 tensors.
    """

    base: onnx.ModelProto
    small: onnx.ModelProto
    masked: onnx.ModelProto
    disturbed: onnx.ModelProto | None
    plan: Plan
    calls: Sequence[Call]
    execute: Callable[[onnx.ModelProto, Iterable[Call]], list[dict[str, Array]]]
    limit: Tolerance
    tolerance: Tolerance

    def of(self, conditions: Conditions) -> Verdict:
        """Both proofs, with the Ifs in `conditions` forced."""
        actual = self._outputs(self.small, conditions)
        expected = self._outputs(self.masked, conditions)
        found = worst(expected, actual, self.limit)
        usual = self._outputs(self.base, conditions) if np.isfinite(found.error) and found.error > 1 else []
        if usual:
            found = worst(expected, actual, self.limit, usual)
        if found.error > 1:
            masked, small = (forced(model, conditions) for model in (self.masked, self.small))
            where = first_difference(masked, small, self.plan, self.calls[0], self.tolerance) or found.where
            return Verdict(False, found.error, where, _reason(found, "differs from the masked original"))
        if self.disturbed is not None:
            moved = worst(expected, self._outputs(self.disturbed, conditions), self.limit, usual)
            if moved.error > 1:
                reason = _reason(moved, "still depends on what was removed")
                return Verdict(False, moved.error, moved.where, reason, "non-interference")
        return Verdict(True, found.error)

    def _outputs(self, model: onnx.ModelProto, conditions: Conditions) -> list[dict[str, Array]]:
        return self.execute(forced(model, conditions), self.calls)


def runs(model: onnx.ModelProto, conditions: Conditions, calls: Sequence[Call]) -> bool:
    """Whether the original takes these inputs on this path, which they were not made for."""
    try:
        run(forced(model, conditions), calls)
    except ModelError:
        return False
    return True


def _reason(found: Difference, what: str) -> str:
    return f"output {found.where} {what}, by {found.error:.3g} times the tolerance"
