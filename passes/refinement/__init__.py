"""Refinement: all weights of a compressed model together, by gradients, towards the dense network's activations."""

from passes.refinement.refine import Refinement, RefineOptions, refine

__all__ = ["RefineOptions", "Refinement", "refine"]
