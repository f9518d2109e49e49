"""Structured pruning: choose units, slice them out, and let what is left make up for them. See docs/compression.md."""

from passes.structured_pruning.allocate import widths_for_macs
from passes.structured_pruning.apply import delete, prune
from passes.structured_pruning.compensate import CompensationReport, Options, compensate
from passes.structured_pruning.criteria import CRITERIA
from passes.structured_pruning.levels import build_levels, keep_mask
from passes.structured_pruning.obs import Curve

__all__ = [
    "CRITERIA",
    "CompensationReport",
    "Curve",
    "Options",
    "build_levels",
    "compensate",
    "delete",
    "keep_mask",
    "prune",
    "widths_for_macs",
]
