"""Evidence made by hand: a residual network on a machine with VNNI, from which tests change what they are about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from onnxprune.advice.facts import Data, Facts, Graph, Host, Kind, Latency, Product, Pruning
from onnxprune.channels import Kept, Share

PLAIN = Facts(
    graph=Graph(
        family="residual CNN",
        nodes=75,
        opset=17,
        params=857_000,
        macs=125_000_000,
        ops={"convolution": 1.0, "depthwise": 0.0, "product": 0.0, "attention": 0.0, "recurrence": 0.0, "other": 0.0},
        float_type="float32",
        quantized=False,
        int8=1.0,
        dynamic=0.0,
        intensity=16.8,
        loose=0.0,
        heavy=False,
        overridable=0,
        inputs={"x": (1, 3, 32, 32)},
        open_inputs=(),
    ),
    pruning=Pruning(
        kinds=(Kind("channel", 30, 1072, 64),),
        prunable=Share(0.99, 0.99),
        kept=(),
        nothing="",
        hidden=0,
        branches=27,
        branch_macs=0.99,
        products=(Product(1, 576, 64),) * 56,
    ),
    data=Data(True, 2000),
    host=Host("some processor", 2, 24, 1, True, ("cpu",), ("cpu",), ("AVX2", "AVX-512", "VNNI"), False),
    latency=Latency(8e-3, 1.0),
    target=None,
)
KEPT = Kept("graph output y", Share(0.3, 0.2), 1, 0, "y:1")


@pytest.fixture
def evidence() -> Callable[..., Facts]:
    """`evidence(graph={...}, host={...}, target=0.4)`: the plain case with these fields replaced."""
    return changed


def changed(target: float | None = None, **parts: dict[str, Any]) -> Facts:
    text = "" if target is None else f"{target:g}x"
    new = {name: replace(getattr(PLAIN, name), **fields) for name, fields in parts.items()}
    return replace(PLAIN, target=target, target_text=text, **new)
