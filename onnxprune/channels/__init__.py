"""Which channels, heads and neurons of a model can leave together, and why the others cannot. See docs/channels.md."""

from onnxprune.channels.cut import Cut
from onnxprune.channels.graph import ChannelGraph, analyze
from onnxprune.channels.groups import Contraction, Frozen, Group
from onnxprune.channels.links import (
    AxisKey,
    AxisRef,
    Barrier,
    Contract,
    Inexact,
    OpLinks,
    Pin,
    Produce,
    Role,
    Tie,
)
from onnxprune.channels.registry import hook_for, known_ops, links_of, op_rule, resize_hook, rule_for
from onnxprune.channels.shares import Kept, Share, Shares

__all__ = [
    "AxisKey",
    "AxisRef",
    "Barrier",
    "ChannelGraph",
    "Contract",
    "Contraction",
    "Cut",
    "Frozen",
    "Group",
    "Inexact",
    "Kept",
    "OpLinks",
    "Pin",
    "Produce",
    "Role",
    "Share",
    "Shares",
    "Tie",
    "analyze",
    "hook_for",
    "known_ops",
    "links_of",
    "op_rule",
    "resize_hook",
    "rule_for",
]
