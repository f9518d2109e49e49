"""Every rule against every node test of onnx that its operator has."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import shape_inference
from onnx.backend.test.case.node import collect_testcases
from proving import prove, random_keep
from wrapped_nodes import Wrapped, wrapped

from onnxprune import channels, ir
from onnxprune.errors import ModelError
from passes.verify_masking.execution import run


@functools.cache
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(collect_testcases(None), key=lambda case: str(case.name))


def prune_and_prove(one: Wrapped, rng: np.random.Generator) -> bool:
    """Whether something could be pruned between the producers and the contraction; it must then equal masking."""
    model = ir.from_proto(one.model)
    ir.infer_shapes(model)
    graph = channels.analyze(model)
    between = [group for group in graph.groups if any(each.tensor.endswith(".matrix") for each in group.contractions)]
    for group in between:
        mask = random_keep(group, rng, 0.3)
        if mask is None:
            continue
        verdict = prove(model, graph, {group.name: mask}, [one.feeds])
        assert verdict.ok, (one.name, group.name, np.flatnonzero(~mask), verdict)
    return bool(between)


def runs(one: Wrapped) -> bool:
    """Whether the provider has a kernel for the node test as it is."""
    try:
        shape_inference.infer_shapes(one.model, strict_mode=True)
        run(one.model, [one.feeds])
    except (ModelError, shape_inference.InferenceError):
        return False
    return True


def prove_forms(most: int) -> Counter[str]:
    """Proves at most this many forms of each operator, and tries twice as many. Returns how many were pruned."""
    rng = np.random.default_rng(0)
    tried, pruned = Counter[str](), Counter[str]()
    for case in cases():
        op = case.model.graph.node[0].op_type if case.model is not None else ""
        for one in wrapped(case):
            if pruned[op] >= most or tried[op] >= 2 * most:
                break
            tried[op] += 1
            pruned[op] += runs(one) and prune_and_prove(one, rng)
    return +pruned


def test_two_forms_of_every_operator() -> None:
    assert len(prove_forms(2)) >= 75


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_forms() -> None:
    assert prove_forms(10_000).total() >= 1000
