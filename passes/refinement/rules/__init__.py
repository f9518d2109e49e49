"""One table, op -> gradient: what is not in it has no gradient, and weights above it are left alone."""

from passes.refinement.rules import (
    activations,
    arithmetic,
    contractions,
    extremes,
    movement,
    normalisations,
    pools,
    resampling,
)
from passes.refinement.tape import Rule

RULES: dict[str, Rule] = {
    **activations.RULES,
    **arithmetic.RULES,
    **contractions.RULES,
    **extremes.RULES,
    **movement.RULES,
    **normalisations.RULES,
    **pools.RULES,
    **resampling.RULES,
}

__all__ = ["RULES"]
