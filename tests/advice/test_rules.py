"""Every rule of the table: when it holds, when it does not, and that it speaks of what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from onnxprune.advice.facts import Facts, Kind
from onnxprune.advice.rules import RULES, holding
from onnxprune.channels import Kept, Share
from onnxprune.cli.root import root

ROOT = Path(__file__).resolve().parents[2]
AVX2 = {"instructions": ("AVX2",), "saturates": True}
NO_GROUPS = {"kinds": (), "prunable": Share(0.0, 0.0), "branches": 0, "branch_macs": 0.0, "nothing": "graph input x"}
HALF = {
    "prunable": Share(0.5, 0.5),
    "branch_macs": 0.0,
    "branches": 0,
    "kept": (Kept("graph output y", Share(0.45, 0.2), 1, 0, "y:1"),),
}

# rule -> (evidence for which it holds and a word that it must say, evidence for which it does not)
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "lossless": ({"latency": {"lossless": 0.7}}, "0.70x", {"latency": {"lossless": None}}),
    "widths": ({}, "channels (30 groups, 1,072 units)", {"pruning": {"hidden": 30}}),
    "heads": (
        {
            "graph": {"family": "transformer"},
            "pruning": {"kinds": (Kind("head", 6, 72, 12), Kind("neuron", 6, 9216, 1536))},
        },
        "heads (6 groups, 72 units) and neurons",
        {},
    ),
    "second-order": ({}, "2,000 samples", {"data": {"given": False}}),
    "depth": ({}, "27 could go", {"pruning": {"branches": 0}}),
    "static-int8": ({}, "100 %", {"host": AVX2}),
    "dynamic-int8": ({"graph": {"dynamic": 0.99}}, "99 %", {"graph": {"dynamic": 0.99, "quantized": True}}),
    "weight-only": ({"graph": {"heavy": True}}, "4-bit", {}),
    "half": ({"host": {"eps": ("cuda",)}}, "float16 on cuda", {"host": {"eps": ("cpu",)}}),
    "measured": ({"host": {"eps": ("cpu", "cuda")}}, "cpu and cuda", {"pruning": NO_GROUPS}),
    "nothing": ({"pruning": NO_GROUPS}, "graph input x", {}),
    "overridable": ({"graph": {"overridable": 244}}, "244 weights", {}),
    "frozen": ({"pruning": HALF}, "graph output y 45 %", {}),
    "below-floor": ({"pruning": HALF, "target": 0.15}, "0.15x", {"pruning": HALF, "target": 0.4}),
    "hidden": ({"pruning": {"hidden": 4}}, "4 groups", {}),
    "slow-int8": ({"host": AVX2}, "7 bits", {}),
    "quantized": ({"graph": {"quantized": True}}, "widths and branches", {}),
    "not-float32": ({"graph": {"float_type": "float16", "int8": 0.0}}, "float16", {}),
    "opset": ({"graph": {"opset": 11}}, "opset 11", {"graph": {"opset": 13}}),
    "call-bound": ({"latency": {"seconds": 60e-6}}, "60 us", {}),
    "depthwise": ({"graph": {"family": "depthwise CNN", "loose": 0.16}}, "16 %", {"graph": {"family": "CNN"}}),
    "accuracy": ({"host": AVX2, "target": 0.4}, "0.4x", {"host": AVX2, "target": 0.6}),
    "target": ({}, "a target", {"target": 0.5}),
    "data": ({"data": {"given": False}}, "no labels", {}),
    "more-data": ({"data": {"samples": 20}}, "20", {"data": {"samples": 256}}),
    "metric": ({}, "metric", {"pruning": NO_GROUPS}),
    "open-shape": ({"graph": {"open_inputs": ("x",)}}, "1x3x32x32", {}),
    "threads": ({"host": {"threads": 4, "threads_given": False}}, "4 were assumed", {"host": {"threads": 4}}),
    "smaller-network": ({"target": 0.25}, "smaller network", {"target": 0.5}),
}


def test_every_rule_has_a_case() -> None:
    assert [rule.name for rule in RULES] == list(CASES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_holds_where_it_should_and_only_there(rule: Any, evidence: Callable[..., Facts]) -> None:
    holds, word, fails = CASES[rule.name]
    facts = evidence(**holds)
    assert rule in set(holding(facts, rule.section))
    assert word in rule.says(facts)
    assert rule not in set(holding(evidence(**fails), rule.section))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_names_a_source_that_exists(rule: Any) -> None:
    for part in re.split(r"[,;] ", rule.source):
        number = re.fullmatch(r"(arXiv )?\d{4}\.\d{5}", part)
        assert number or part in ("measured now", "the graph") or (ROOT / part).is_file(), part


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_gives_only_options_and_commands_that_there_are(rule: Any) -> None:
    commands = {"": root.default, **root.commands}  # type: ignore[attr-defined]
    named = re.search(r"onnxprune (\w+)", rule.gives)
    command = commands[named[1] if named else ""]
    known = {name for option in command.params if isinstance(option, click.Option) for name in option.opts}
    assert set(re.findall(r"--[a-z-]+", rule.gives)) <= known


def test_a_target_that_is_met_already_asks_for_nothing_hard(evidence: Callable[..., Facts]) -> None:
    facts = evidence(latency={"lossless": 0.2}, target=0.3, host=AVX2)
    names = {rule.name for section in ("cannot", "help") for rule in holding(facts, section)}  # type: ignore[arg-type]
    assert not names & {"accuracy", "below-floor", "smaller-network"}


def test_the_floor_counts_eight_bits_only_where_they_are_fast(evidence: Callable[..., Facts]) -> None:
    below = next(rule for rule in RULES if rule.name == "below-floor")
    assert not below.when(evidence(pruning=HALF, target=0.3))
    assert below.when(evidence(pruning=HALF, target=0.3, host=AVX2))


def test_few_rows_make_fewer_bytes_worth_it_on_any_processor(evidence: Callable[..., Facts]) -> None:
    perceptron = {"family": "perceptron", "loose": 1.0, "dynamic": 1.0}
    names = {rule.name for rule in RULES if rule.when(evidence(graph=perceptron, host=AVX2))}
    assert "dynamic-int8" in names and "slow-int8" not in names
