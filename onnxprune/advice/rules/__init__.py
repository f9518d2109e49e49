"""The table of rules: each says one thing about a model, when it holds, and on whose word.

Sources are surveys and papers by arXiv number, for what they state in general, and documents of this repository, for
what was measured here. A rule names the option to give where there is one; it never names what the tool cannot do.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.advice.facts import Facts
from onnxprune.advice.rules.hints import HINTS
from onnxprune.advice.rules.limits import LIMITS
from onnxprune.advice.rules.rule import Rule, Section, met_already
from onnxprune.advice.rules.tried import TRIED

__all__ = ["RULES", "Rule", "holding", "met_already"]

RULES = (*TRIED, *LIMITS, *HINTS)


def holding(facts: Facts, section: Section) -> Iterator[Rule]:
    """The rules of a section that hold, in the order of the table."""
    return (rule for rule in RULES if rule.section == section and rule.when(facts))
