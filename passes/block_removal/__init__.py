"""Finds residual branches and removes them."""

from passes.block_removal.branches import Branch, branches, drop

__all__ = ["Branch", "branches", "drop"]
