"""One table, op -> gradient: what is not in it has no gradient, and weights above it are left alone."""

from passes.refinement.rules import activations, arithmetic, contractions, movement, normalisations, pools
from passes.refinement.tape import Rule

RULES: dict[str, Rule] = {
    **activations.RULES,
    **arithmetic.RULES,
    **contractions.RULES,
    **movement.RULES,
    **normalisations.RULES,
    **pools.RULES,
}

__all__ = ["RULES"]
