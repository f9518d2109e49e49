"""One way to apply a pass in tests: run it and check everything that every pass owes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from onnxprune import ir
from onnxprune.pipeline import Pass, PassContext, PassResult
from onnxprune.verification import changed_signature, difference, invalid

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Applied:
    """A model after a pass, as a model and as the text of its nodes, and what the pass said."""

    model: ir.Model
    nodes: list[str]
    result: PassResult

    def values(self, name: str) -> Array:
        """The values of an initializer."""
        return ir.initializers(self.model)[name].values


def parse(text: str) -> onnx.ModelProto:
    """A model from ONNX text; the header line may be left out."""
    header = "" if text.lstrip().startswith("<") else '<ir_version: 8, opset_import: ["" : 17]>\n'
    proto: onnx.ModelProto = onnx.parser.parse_model(header + text)
    return proto


def node_lines(model: ir.Model) -> list[str]:
    """The nodes in the stable text form, without tensors and signature."""
    kinds = ("ir ", "input ", "const ", "output ", "function ")
    return [line for line in ir.text(model).splitlines() if not line.startswith(kinds)]


def run_proto(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Any]:
    """Outputs on the CPU provider without optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()}))


def random_feeds(model: ir.Model, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Normal numbers for float inputs, 0..2 for integers; dynamic dimensions by name, 3 otherwise."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for tensor in ir.feed_inputs(model):
        shape = [size if isinstance(size, int) else sizes.get(str(size), 3) for size in tensor.shape]
        dtype = np.dtype(tensor.dtype)
        drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[tensor.name] = np.asarray(drawn).astype(dtype)
    return feeds


Apply = Callable[..., Applied]


@pytest.fixture
def apply() -> Apply:
    """``apply(item, text_or_proto, sizes=..., feeds=...)`` runs a pass and checks the contract.

    Valid result, same signature, outputs as promised at two batch sizes, input untouched, nothing left for a second
    run, equal bytes on another run.
    """

    def run(
        item: Pass,
        source: str | onnx.ModelProto,
        sizes: Sequence[Mapping[str, int]] = ({"N": 1}, {"N": 4}),
        feeds: Mapping[str, Array] | None = None,
        runs: bool = True,
    ) -> Applied:
        proto = parse(source) if isinstance(source, str) else source
        stored = proto.SerializeToString(deterministic=True)
        before, model = ir.from_proto(proto), ir.from_proto(proto)
        result = item.run(model, PassContext())
        assert not invalid(model)
        assert not changed_signature(before, model)
        assert proto.SerializeToString(deterministic=True) == stored
        after = ir.to_proto(model)
        if not result.modified:
            assert node_lines(model) == node_lines(before)
        for size in sizes if runs else ():
            given = feeds if feeds is not None else random_feeds(before, size)
            for old, new in zip(run_proto(proto, given), run_proto(after, given), strict=True):
                assert difference(np.asarray(old), np.asarray(new), item.promise, 1e-5) == ""
        assert not item.run(model.copy(), PassContext()).modified
        again = ir.from_proto(proto)
        item.run(again, PassContext())
        assert ir.to_proto(again).SerializeToString() == after.SerializeToString()
        return Applied(model, node_lines(model), result)

    return run
